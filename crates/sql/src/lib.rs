//! GoogleSQL: text in, rows out.
//!
//! ```text
//! text ── lexer, parse ──> ast ── analyse (names, types, key ranges) ──> plan ── execute ──> batches of rows
//! ```
//!
//! Three passes that know nothing of each other's insides. `parse` knows the grammar only. `analyse` sees one
//! catalog snapshot and the parameters, and leaves a tree with no names in it. `execute` pulls batches of rows
//! through that tree, reading and writing through `Storage`, which a door implements over a snapshot or a
//! transaction. Beside them: `definition` turns data definition into catalog changes and back, `rows` holds the
//! rules for what a row may contain, `value` what GoogleSQL does with values.
//!
//! Built: queries over tables, INFORMATION_SCHEMA views, arrays and subqueries, and joins of them; aggregates; set
//! operations; correlated subqueries; INSERT, UPDATE, DELETE; CREATE, ALTER and DROP TABLE. Not built yet, and refused
//! by name: window functions, grouping sets, indexes, views.

pub mod analyse;
pub mod ast;
pub mod definition;
pub mod error;
pub mod execute;
mod functions;
mod information_schema;
pub mod lexer;
pub mod parse;
pub mod plan;
mod push_down;
mod ranges;
pub mod rows;
#[cfg(test)]
mod test_support;
pub mod typed;
pub mod types;
pub mod value;

pub use analyse::{
    Environment, NoParameters, ParameterType, Parameters, Prepared, find_column, find_table,
    prepare,
};
pub use error::{Error, ErrorKind, Position};
pub use execute::{Cursor, Effect, Storage, execute_manipulation, refuse_orphans};
pub use parse::{parse_definition, parse_statement};
pub use plan::{Manipulation, OutputColumn, Plan, Row};
pub use types::SqlType;
