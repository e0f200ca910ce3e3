//! CREATE, ALTER, DROP and DESCRIBE.

use super::ast::*;
use super::lexer::TokenKind;
use super::parser::Parser;
use crate::error::Error;

/// What a table's WITH says.
#[derive(Default)]
struct TableOptions {
    options: Vec<(String, OptionValue)>,
    clustering_order: Vec<(String, bool)>,
}

impl Parser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement, Error> {
        self.expect_word("create")?;
        if self.accept_word("keyspace") || self.accept_word("schema") {
            let if_not_exists = self.if_not_exists();
            let name = self.name()?;
            return Ok(Statement::CreateKeyspace {
                name,
                if_not_exists,
                options: self.with_options()?,
            });
        }
        if self.accept_word("table") || self.accept_word("columnfamily") {
            return self.create_table();
        }
        if self.accept_word("type") {
            let if_not_exists = self.if_not_exists();
            let name = self.table_name()?;
            self.expect("(")?;
            let fields = self.type_fields()?;
            self.expect(")")?;
            return Ok(Statement::CreateType {
                name,
                if_not_exists,
                fields,
            });
        }
        self.unsupported_object()
    }

    fn type_fields(&mut self) -> Result<Vec<(String, TypeName)>, Error> {
        let mut fields = Vec::new();
        loop {
            let name = self.name()?;
            fields.push((name, self.type_name()?));
            if !self.accept(",") {
                return Ok(fields);
            }
        }
    }

    fn unsupported_object(&mut self) -> Result<Statement, Error> {
        let TokenKind::Word(word) = self.peek() else {
            return Err(self.unexpected(""));
        };
        Ok(Statement::Unsupported(match word.as_str() {
            "index" | "custom" => "Secondary indexes are",
            "materialized" => "Materialized views are",
            "role" | "user" => "Roles and permissions are",
            "function" | "aggregate" | "or" => "User-defined functions and aggregates are",
            "trigger" => "Triggers are",
            _ => return Err(self.unexpected("")),
        }))
    }

    fn create_table(&mut self) -> Result<Statement, Error> {
        let if_not_exists = self.if_not_exists();
        let table = self.table_name()?;
        if self.is_word("like") {
            return Ok(Statement::Unsupported("CREATE TABLE LIKE is"));
        }
        let mut statement = CreateTable {
            table,
            if_not_exists,
            columns: Vec::new(),
            partition_key: Vec::new(),
            clustering_key: Vec::new(),
            clustering_order: Vec::new(),
            options: Vec::new(),
        };
        self.expect("(")?;
        loop {
            if self.accept_words(&["primary", "key"]) {
                self.primary_key(&mut statement)?;
            } else {
                let column = self.column_definition()?;
                if self.accept_words(&["primary", "key"]) {
                    if !statement.partition_key.is_empty() {
                        return Err(Error::invalid(
                            "Multiple PRIMARY KEYs specified (exactly one required)",
                        ));
                    }
                    statement.partition_key.push(column.name.clone());
                }
                statement.columns.push(column);
            }
            if !self.accept(",") {
                break;
            }
            // A comma before the closing parenthesis is allowed.
            if matches!(self.peek(), TokenKind::Symbol(")")) {
                break;
            }
        }
        self.expect(")")?;
        let with = self.table_options()?;
        statement.options = with.options;
        statement.clustering_order = with.clustering_order;
        Ok(Statement::CreateTable(statement))
    }

    fn column_definition(&mut self) -> Result<ColumnDefinition, Error> {
        let name = self.name()?;
        let kind = self.type_name()?;
        Ok(ColumnDefinition {
            name,
            kind,
            is_static: self.accept_word("static"),
        })
    }

    fn primary_key(&mut self, statement: &mut CreateTable) -> Result<(), Error> {
        if !statement.partition_key.is_empty() {
            return Err(Error::invalid(
                "Multiple PRIMARY KEYs specified (exactly one required)",
            ));
        }
        self.expect("(")?;
        if self.accept("(") {
            statement.partition_key = self.names()?;
            self.expect(")")?;
        } else {
            statement.partition_key = vec![self.name()?];
        }
        if self.accept(",") {
            statement.clustering_key = self.names()?;
        }
        self.expect(")")
    }

    fn table_options(&mut self) -> Result<TableOptions, Error> {
        let mut with = TableOptions::default();
        if !self.accept_word("with") {
            return Ok(with);
        }
        loop {
            if self.accept_words(&["clustering", "order", "by"]) {
                self.expect("(")?;
                loop {
                    let name = self.name()?;
                    with.clustering_order.push((name, self.is_descending()));
                    if !self.accept(",") {
                        break;
                    }
                }
                self.expect(")")?;
            } else if self.accept_words(&["compact", "storage"]) {
                return Err(Error::invalid(
                    "COMPACT STORAGE tables are not allowed starting with version 4.0",
                ));
            } else {
                with.options.push(self.option()?);
            }
            if !self.accept_word("and") {
                return Ok(with);
            }
        }
    }

    fn with_options(&mut self) -> Result<Vec<(String, OptionValue)>, Error> {
        let mut options = Vec::new();
        if !self.accept_word("with") {
            return Ok(options);
        }
        loop {
            options.push(self.option()?);
            if !self.accept_word("and") {
                return Ok(options);
            }
        }
    }

    fn option(&mut self) -> Result<(String, OptionValue), Error> {
        let name = self.name()?;
        self.expect("=")?;
        let value = self.option_value(&name)?;
        Ok((name, value))
    }

    pub(super) fn option_value(&mut self, name: &str) -> Result<OptionValue, Error> {
        Ok(match self.term()? {
            Term::Map(pairs) => {
                let pairs = pairs
                    .into_iter()
                    .map(|(key, value)| Ok((option_text(name, key)?, option_text(name, value)?)));
                OptionValue::Map(pairs.collect::<Result<_, Error>>()?)
            }
            other => OptionValue::Text(option_text(name, other)?),
        })
    }

    pub(super) fn alter(&mut self) -> Result<Statement, Error> {
        self.expect_word("alter")?;
        if self.accept_word("keyspace") || self.accept_word("schema") {
            let if_exists = self.if_exists();
            let name = self.name()?;
            return Ok(Statement::AlterKeyspace {
                name,
                if_exists,
                options: self.with_options()?,
            });
        }
        if self.accept_word("table") || self.accept_word("columnfamily") {
            let if_exists = self.if_exists();
            let table = self.table_name()?;
            return Ok(Statement::AlterTable {
                table,
                if_exists,
                alteration: self.alteration()?,
            });
        }
        if self.accept_word("type") {
            let if_exists = self.if_exists();
            let name = self.table_name()?;
            let alteration = if self.accept_word("add") {
                self.if_not_exists();
                TypeAlteration::Add(self.type_fields()?)
            } else if self.accept_word("rename") {
                TypeAlteration::Rename(self.renames()?)
            } else {
                return Err(self.unexpected(""));
            };
            return Ok(Statement::AlterType {
                name,
                if_exists,
                alteration,
            });
        }
        self.unsupported_object()
    }

    fn renames(&mut self) -> Result<Vec<(String, String)>, Error> {
        let mut renames = Vec::new();
        loop {
            let from = self.name()?;
            self.expect_word("to")?;
            renames.push((from, self.name()?));
            if !self.accept_word("and") {
                return Ok(renames);
            }
        }
    }

    fn alteration(&mut self) -> Result<Alteration, Error> {
        if self.accept_word("add") {
            let if_not_exists = self.if_not_exists();
            let is_parenthesised = self.accept("(");
            let mut columns = vec![self.column_definition()?];
            while self.accept(",") {
                columns.push(self.column_definition()?);
            }
            if is_parenthesised {
                self.expect(")")?;
            }
            return Ok(Alteration::Add {
                if_not_exists,
                columns,
            });
        }
        if self.accept_word("drop") {
            let if_exists = self.if_exists();
            let is_parenthesised = self.accept("(");
            let columns = self.names()?;
            if is_parenthesised {
                self.expect(")")?;
            }
            let mut timestamp = None;
            if self.accept_words(&["using", "timestamp"]) {
                timestamp = Some(self.integer()?);
            }
            return Ok(Alteration::Drop {
                if_exists,
                columns,
                timestamp,
            });
        }
        if self.accept_word("rename") {
            let if_exists = self.if_exists();
            return Ok(Alteration::Rename {
                if_exists,
                columns: self.renames()?,
            });
        }
        if self.accept_word("alter") {
            self.name()?;
            self.accept_word("type");
            self.type_name()?;
            return Ok(Alteration::ChangeType);
        }
        if self.is_word("with") {
            let with = self.table_options()?;
            if !with.clustering_order.is_empty() {
                return Err(self.unexpected(""));
            }
            return Ok(Alteration::Options(with.options));
        }
        Err(self.unexpected(""))
    }

    pub(super) fn drop(&mut self) -> Result<Statement, Error> {
        self.expect_word("drop")?;
        if self.accept_word("keyspace") || self.accept_word("schema") {
            let if_exists = self.if_exists();
            return Ok(Statement::DropKeyspace {
                name: self.name()?,
                if_exists,
            });
        }
        if self.accept_word("table") || self.accept_word("columnfamily") {
            let if_exists = self.if_exists();
            return Ok(Statement::DropTable {
                table: self.table_name()?,
                if_exists,
            });
        }
        if self.accept_word("type") {
            let if_exists = self.if_exists();
            return Ok(Statement::DropType {
                name: self.table_name()?,
                if_exists,
            });
        }
        self.unsupported_object()
    }

    pub(super) fn describe(&mut self) -> Result<Statement, Error> {
        self.next();
        let what = match self.peek().clone() {
            TokenKind::Word(word) => word,
            _ => String::new(),
        };
        let is_last = matches!(self.peek_at(1), TokenKind::End | TokenKind::Symbol(";"));
        let describe = match (what.as_str(), is_last) {
            ("keyspaces", true) => self.described(Describe::Keyspaces),
            ("tables", true) => self.described(Describe::Tables),
            ("types", true) => self.described(Describe::Types),
            ("functions", true) => self.described(Describe::Functions),
            ("aggregates", true) => self.described(Describe::Aggregates),
            ("cluster", true) => self.described(Describe::Cluster),
            ("schema", true) => self.described(Describe::Schema { is_full: false }),
            ("full", false) if self.is_word_at(1, "schema") => {
                self.next();
                self.described(Describe::Schema { is_full: true })
            }
            ("keyspace", true) => self.described(Describe::Keyspace(None)),
            ("keyspace", false) => {
                self.next();
                Describe::Keyspace(Some(self.name()?))
            }
            ("only", false) => {
                self.next();
                self.expect_word("keyspace")?;
                let name = match self.peek() {
                    TokenKind::End | TokenKind::Symbol(";") => None,
                    _ => Some(self.name()?),
                };
                Describe::Keyspace(name)
            }
            ("table" | "columnfamily", false) => {
                self.next();
                Describe::Table(self.table_name()?)
            }
            ("type", false) => {
                self.next();
                Describe::Type(self.table_name()?)
            }
            ("index", false) => self.described_other("index")?,
            ("function", false) => self.described_other("function")?,
            ("aggregate", false) => self.described_other("aggregate")?,
            ("materialized", false) => {
                self.next();
                self.described_other("materialized view")?
            }
            _ => Describe::Named(self.table_name()?),
        };
        if self.accept_word("with") {
            self.expect_word("internals")?;
        }
        Ok(Statement::Describe(describe))
    }

    fn described(&mut self, describe: Describe) -> Describe {
        self.next();
        describe
    }

    fn described_other(&mut self, what: &'static str) -> Result<Describe, Error> {
        self.next();
        Ok(Describe::Other(what, self.table_name()?))
    }
}

fn option_text(option: &str, term: Term) -> Result<String, Error> {
    match term {
        Term::Constant(Constant::Text(text) | Constant::Integer(text) | Constant::Float(text)) => {
            Ok(text)
        }
        Term::Constant(Constant::Boolean(value)) => Ok(value.to_string()),
        Term::Constant(Constant::Uuid(uuid)) => Ok(uuid::Uuid::from_bytes(uuid).to_string()),
        _ => Err(Error::syntax(format!(
            "Invalid value for the property '{option}'"
        ))),
    }
}
