//! `BEGIN TRANSACTION … COMMIT TRANSACTION`, as Cassandra 6 writes it:
//!
//! ```text
//! BEGIN TRANSACTION
//!   LET row = (SELECT …);                  any number
//!   SELECT …;  or  SELECT row.column, …;   none or one
//!   IF row.column = term AND row IS NOT NULL … THEN
//!     UPDATE …; INSERT …; DELETE …;        or without IF … END IF around them
//!   END IF
//! COMMIT TRANSACTION
//! ```

use super::ast::*;
use super::lexer::TokenKind;
use super::parser::Parser;
use crate::error::Error;
use crate::protocol::BATCH_STATEMENTS_MAX;

/// Rows that one transaction may name.
const LETS_MAX: usize = 100;

impl Parser<'_> {
    /// Behind BEGIN.
    pub(super) fn transaction(&mut self) -> Result<Statement, Error> {
        self.expect_word("transaction")?;
        self.in_transaction = true;
        let mut transaction = Transaction::default();
        while self.accept_word("let") {
            if transaction.lets.len() == LETS_MAX {
                return Err(Error::invalid("the transaction names too many rows"));
            }
            let name = self.name()?;
            self.expect("=")?;
            self.expect("(")?;
            transaction.lets.push((name, self.select()?));
            self.expect(")")?;
            self.expect(";")?;
        }
        if self.is_word("select") {
            transaction.result = Some(self.transaction_result(&transaction.lets)?);
            self.expect(";")?;
        }
        let is_conditional = self.accept_word("if");
        if is_conditional {
            transaction.conditions.push(self.transaction_condition()?);
            while self.accept_word("and") {
                transaction.conditions.push(self.transaction_condition()?);
            }
            self.expect_word("then")?;
        }
        loop {
            let statement = if self.is_word("insert") {
                self.insert()?
            } else if self.is_word("update") {
                self.update()?
            } else if self.is_word("delete") {
                self.delete()?
            } else {
                break;
            };
            if let Statement::Unsupported(_) = statement {
                return Ok(statement);
            }
            if transaction.statements.len() == BATCH_STATEMENTS_MAX {
                return Err(Error::invalid("the transaction has too many statements"));
            }
            transaction.statements.push(statement);
            self.expect(";")?;
        }
        if is_conditional {
            self.expect_word("end")?;
            self.expect_word("if")?;
            self.accept(";");
        }
        self.expect_word("commit")?;
        self.expect_word("transaction")?;
        self.in_transaction = false;
        if transaction.result.is_none() && transaction.statements.is_empty() {
            return Err(Error::invalid(
                "Transaction contains no reads or writes: it needs a SELECT or a modification",
            ));
        }
        Ok(Statement::Transaction(Box::new(transaction)))
    }

    /// A SELECT of a table, or one of the rows that LET has named.
    fn transaction_result(
        &mut self,
        lets: &[(String, Select)],
    ) -> Result<TransactionResult, Error> {
        let names_row = match self.peek_at(1) {
            TokenKind::Word(name) | TokenKind::QuotedName(name) => {
                lets.iter().any(|(known, _)| known == name)
                    && matches!(self.peek_at(2), TokenKind::Symbol("."))
            }
            _ => false,
        };
        if !names_row {
            return self.select().map(TransactionResult::Select);
        }
        self.expect_word("select")?;
        let mut references = vec![self.reference()?];
        while self.accept(",") {
            references.push(self.reference()?);
        }
        Ok(TransactionResult::References(references))
    }

    /// `row.column`.
    pub(super) fn reference(&mut self) -> Result<Reference, Error> {
        let row = self.name()?;
        self.expect(".")?;
        Ok(Reference {
            row,
            column: self.name()?,
        })
    }

    pub(super) fn is_reference(&self) -> bool {
        let is_name =
            |token: &TokenKind| matches!(token, TokenKind::Word(_) | TokenKind::QuotedName(_));
        self.in_transaction
            && is_name(self.peek())
            && matches!(self.peek_at(1), TokenKind::Symbol("."))
            && is_name(self.peek_at(2))
            && !matches!(self.peek_at(3), TokenKind::Symbol("("))
    }

    fn transaction_condition(&mut self) -> Result<TransactionCondition, Error> {
        let names_row = !self.is_reference()
            && matches!(self.peek(), TokenKind::Word(_) | TokenKind::QuotedName(_))
            && self.is_word_at(1, "is");
        if names_row {
            let row = self.name()?;
            let is_null = self.is_null()?;
            return Ok(TransactionCondition::Row { row, is_null });
        }
        let left = self.term()?;
        if self.is_word("is") {
            let is_null = self.is_null()?;
            return Ok(TransactionCondition::Term { left, is_null });
        }
        let operator = self.operator().ok_or_else(|| self.unexpected(""))?;
        let right = self.term()?;
        Ok(TransactionCondition::Compare {
            left,
            operator,
            right,
        })
    }

    /// `IS NULL` or `IS NOT NULL`.
    fn is_null(&mut self) -> Result<bool, Error> {
        self.expect_word("is")?;
        let is_null = !self.accept_word("not");
        self.expect_word("null")?;
        Ok(is_null)
    }
}
