//! INSERT, UPDATE, DELETE and BATCH.

use super::ast::*;
use super::lexer::TokenKind;
use super::parser::Parser;
use crate::error::Error;
use crate::protocol::BATCH_STATEMENTS_MAX;

impl Parser<'_> {
    pub(super) fn using(&mut self) -> Result<Using, Error> {
        let mut using = Using::default();
        if !self.accept_word("using") {
            return Ok(using);
        }
        loop {
            if self.accept_word("timestamp") {
                using.timestamp = Some(self.term()?);
            } else if self.accept_word("ttl") {
                using.ttl = Some(self.term()?);
            } else {
                return Err(self.unexpected(""));
            }
            if !self.accept_word("and") {
                return Ok(using);
            }
        }
    }

    pub(super) fn insert(&mut self) -> Result<Statement, Error> {
        self.expect_word("insert")?;
        self.expect_word("into")?;
        let table = self.table_name()?;
        if self.is_word("json") {
            return Ok(Statement::Unsupported("INSERT JSON is"));
        }
        self.expect("(")?;
        let columns = self.names()?;
        self.expect(")")?;
        self.expect_word("values")?;
        self.expect("(")?;
        let mut values = vec![self.term()?];
        while self.accept(",") {
            values.push(self.term()?);
        }
        self.expect(")")?;
        Ok(Statement::Insert(Insert {
            table,
            columns,
            values,
            if_not_exists: self.if_not_exists(),
            using: self.using()?,
        }))
    }

    pub(super) fn update(&mut self) -> Result<Statement, Error> {
        self.expect_word("update")?;
        let table = self.table_name()?;
        let using = self.using()?;
        self.expect_word("set")?;
        let mut operations = Vec::new();
        loop {
            let column = self.name()?;
            let operation = self.operation(&column)?;
            operations.push((column, operation));
            if !self.accept(",") {
                break;
            }
        }
        self.expect_word("where")?;
        let relations = self.relations()?;
        Ok(Statement::Update(Update {
            table,
            using,
            operations,
            relations,
            condition: self.condition()?,
        }))
    }

    fn operation(&mut self, column: &str) -> Result<Operation, Error> {
        if self.accept("[") {
            let key = self.term()?;
            self.expect("]")?;
            self.expect("=")?;
            return Ok(Operation::SetElement(key, self.term()?));
        }
        if self.accept(".") {
            let field = self.name()?;
            self.expect("=")?;
            return Ok(Operation::SetField(field, self.term()?));
        }
        if self.accept("+=") {
            return self.term().map(Operation::Add);
        }
        if self.accept("-=") {
            return self.term().map(Operation::Subtract);
        }
        self.expect("=")?;
        let names_column = match self.peek() {
            TokenKind::Word(name) | TokenKind::QuotedName(name) => name == column,
            _ => false,
        };
        if names_column {
            match self.peek_at(1) {
                TokenKind::Symbol("+") => {
                    self.next();
                    self.next();
                    return self.term().map(Operation::Add);
                }
                TokenKind::Symbol("-") => {
                    self.next();
                    self.next();
                    return self.term().map(Operation::Subtract);
                }
                _ => {}
            }
        }
        let term = self.term()?;
        if self.accept("+") {
            let other = self.name()?;
            if other != column {
                return Err(Error::syntax(format!(
                    "Only expressions of the form X = <value> + X are supported, not with {other}"
                )));
            }
            return Ok(Operation::Prepend(term));
        }
        Ok(Operation::Set(term))
    }

    pub(super) fn delete(&mut self) -> Result<Statement, Error> {
        self.expect_word("delete")?;
        let mut targets = Vec::new();
        if !self.is_word("from") {
            loop {
                let column = self.name()?;
                targets.push(if self.accept("[") {
                    let key = self.term()?;
                    self.expect("]")?;
                    DeleteTarget::Element(column, key)
                } else if self.accept(".") {
                    DeleteTarget::Field(column, self.name()?)
                } else {
                    DeleteTarget::Column(column)
                });
                if !self.accept(",") {
                    break;
                }
            }
        }
        self.expect_word("from")?;
        let table = self.table_name()?;
        let using = self.using()?;
        if using.ttl.is_some() {
            return Err(self.unexpected("K_WHERE"));
        }
        self.expect_word("where")?;
        let relations = self.relations()?;
        Ok(Statement::Delete(Delete {
            table,
            using,
            targets,
            relations,
            condition: self.condition()?,
        }))
    }

    fn condition(&mut self) -> Result<Option<ConditionClause>, Error> {
        if self.if_exists() {
            return Ok(Some(ConditionClause::Exists));
        }
        if !self.accept_word("if") {
            return Ok(None);
        }
        let mut conditions = Vec::new();
        loop {
            let column = self.name()?;
            let (mut element, mut field) = (None, None);
            if self.accept("[") {
                element = Some(self.term()?);
                self.expect("]")?;
            } else if self.accept(".") {
                field = Some(self.name()?);
            }
            let (operator, values) = if let Some(operator) = self.operator() {
                (operator, InValues::Terms(vec![self.term()?]))
            } else if self.accept_word("in") {
                (Operator::In, self.in_values()?)
            } else if self.accept_word("contains") {
                let operator = if self.accept_word("key") {
                    Operator::ContainsKey
                } else {
                    Operator::Contains
                };
                (operator, InValues::Terms(vec![self.term()?]))
            } else {
                return Err(self.unexpected(""));
            };
            conditions.push(ColumnCondition {
                column,
                element,
                field,
                operator,
                values,
            });
            if !self.accept_word("and") {
                return Ok(Some(ConditionClause::Columns(conditions)));
            }
        }
    }

    pub(super) fn batch(&mut self) -> Result<Statement, Error> {
        self.expect_word("begin")?;
        if self.is_word("transaction") {
            return self.transaction();
        }
        let kind = if self.accept_word("unlogged") {
            BatchKind::Unlogged
        } else if self.accept_word("counter") {
            BatchKind::Counter
        } else {
            BatchKind::Logged
        };
        self.expect_word("batch")?;
        let using = self.using()?;
        if using.ttl.is_some() {
            return Err(Error::invalid(
                "Global TTL on the BATCH statement is not supported.",
            ));
        }
        let mut statements = Vec::new();
        loop {
            while self.accept(";") {}
            if self.accept_word("apply") {
                self.expect_word("batch")?;
                return Ok(Statement::Batch(Batch {
                    kind,
                    using,
                    statements,
                }));
            }
            if statements.len() == BATCH_STATEMENTS_MAX {
                return Err(Error::invalid("the batch has too many statements"));
            }
            let statement = if self.is_word("insert") {
                self.insert()?
            } else if self.is_word("update") {
                self.update()?
            } else if self.is_word("delete") {
                self.delete()?
            } else {
                return Err(self.unexpected("K_APPLY"));
            };
            if let Statement::Unsupported(_) = statement {
                return Ok(statement);
            }
            statements.push(statement);
        }
    }
}
