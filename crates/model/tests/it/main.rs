//! Laws of the model, for values and rows that nobody thought of.

mod keys;
mod rows;
mod values;
