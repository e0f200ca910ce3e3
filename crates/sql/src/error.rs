//! Why a statement was refused, in the classes that Spanner's clients tell apart, with the place in the text.

use std::fmt;

/// A place in a statement: both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    /// The position of a byte offset in `text`.
    pub fn of(text: &str, offset: usize) -> Position {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position {
            line: before.matches('\n').count() as u32 + 1,
            column: before[line_start..].chars().count() as u32 + 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The statement is wrong: syntax, names, types.
    InvalidArgument,
    /// The statement is right GoogleSQL, and not built.
    Unimplemented,
    /// A value that the computation cannot represent: overflow, division by zero, a cast that fails.
    OutOfRange,
    NotFound,
    AlreadyExists,
    /// A rule of the schema is broken: NOT NULL, a child without a parent.
    FailedPrecondition,
    /// A memory or size limit of the executor.
    ResourceExhausted,
}

/// A byte offset into the statement; the outermost caller, who has the text, turns it into a position.
pub type Offset = usize;

#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    Statement {
        kind: ErrorKind,
        message: String,
        position: Option<Position>,
        offset: Option<Offset>,
    },
    /// What the database answered.
    Database(api::Error),
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::Statement {
            kind,
            message: message.into(),
            position: None,
            offset: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    pub fn out_of_range(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::OutOfRange, message)
    }

    /// `feature` is a noun phrase: "JOIN", "window functions".
    pub fn unimplemented(feature: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Unimplemented,
            format!("{feature} is not supported by Tessera yet"),
        )
    }

    pub fn syntax(message: impl fmt::Display) -> Error {
        Error::invalid(format!("Syntax error: {message}"))
    }

    /// Names the place, unless a deeper cause already has.
    pub fn at(mut self, at: Offset) -> Error {
        if let Error::Statement { offset, .. } = &mut self
            && offset.is_none()
        {
            *offset = Some(at);
        }
        self
    }

    /// Turns the offset into a line and a column.
    pub fn in_text(mut self, text: &str) -> Error {
        if let Error::Statement {
            offset, position, ..
        } = &mut self
            && let (Some(offset), None) = (*offset, *position)
        {
            *position = Some(Position::of(text, offset));
        }
        self
    }
}

impl From<api::Error> for Error {
    fn from(error: api::Error) -> Error {
        Error::Database(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Statement {
                message, position, ..
            } => {
                write!(formatter, "{message}")?;
                match position {
                    Some(position) => {
                        write!(formatter, " [at {}:{}]", position.line, position.column)
                    }
                    None => Ok(()),
                }
            }
            Error::Database(error) => write!(formatter, "{error}"),
        }
    }
}

impl std::error::Error for Error {}
