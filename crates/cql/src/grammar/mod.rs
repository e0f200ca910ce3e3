//! CQL text to statements: a hand-written lexer and a recursive-descent parser. Knows no catalog: names are
//! names, literals are literals.

pub mod ast;
mod definition;
pub mod lexer;
mod manipulation;
mod parser;
mod select;
mod term;
mod transaction;

pub use parser::{Parsed, parse, parse_option, parse_type};

#[cfg(test)]
mod tests;
