//! The scalar functions and operators that treat their arguments eagerly: a table of signatures, and bodies
//! that are plain functions of values. What chooses among its arguments (IF, COALESCE, CASE) lives in `typed`.

mod arithmetic;
mod table;
mod text;
mod time;

pub use table::resolve;
pub use text::like;
pub use time::{DatePart, extract, interval_function};

use crate::error::Error;
use model::Value;
use std::fmt;

pub type Body = fn(&[Value]) -> Result<Value, Error>;

/// A function with one of its signatures chosen.
#[derive(Clone, Copy)]
pub struct Function {
    pub name: &'static str,
    /// NULL in, NULL out, without a call.
    pub strict: bool,
    pub body: Body,
}

impl fmt::Debug for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// By name: overloads of one name are told apart by the types of their arguments.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name
    }
}

/// The analyser has matched the types; a body that meets others anyway says so instead of panicking.
pub(crate) fn mismatch(name: &str) -> Error {
    Error::invalid(format!("No matching signature for function {name}"))
}
