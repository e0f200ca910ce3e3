//! Evaluation of a mutation against the row that is there: pure, shared by whoever holds the row.
