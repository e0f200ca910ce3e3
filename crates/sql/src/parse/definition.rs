//! Data definition. What Spanner has and Tessera has not is refused by name.

use super::Parser;
use crate::ast::{
    AlterTable, ColumnDefinition, CreateTable, Definition, Interleave, KeyPart, Name, OptionValue,
};
use crate::error::Error;
use crate::lexer::TokenKind;

impl Parser {
    pub(super) fn definition(&mut self) -> Result<Definition, Error> {
        match self.keyword_here().as_deref() {
            Some("CREATE") => self.create(),
            Some("DROP") => self.drop_statement(),
            Some("ALTER") => self.alter(),
            Some(word @ ("GRANT" | "REVOKE" | "ANALYZE" | "RENAME")) => {
                Err(self.unimplemented(&format!("the {word} statement")))
            }
            _ => Err(self.unexpected("a statement of data definition")),
        }
    }

    /// What kind of thing a CREATE, DROP or ALTER is about, when it is not a table.
    fn unsupported_object(&self, verb: &str) -> Error {
        let mut words = Vec::new();
        for ahead in 0..4 {
            match self.keyword_ahead(ahead).as_deref() {
                Some("OR" | "REPLACE") => {}
                Some(
                    word @ ("UNIQUE" | "NULL_FILTERED" | "SEARCH" | "VECTOR" | "CHANGE"
                    | "PROPERTY" | "PROTO" | "LOCALITY"),
                ) => words.push(word.to_owned()),
                Some(word) => {
                    words.push(word.to_owned());
                    break;
                }
                None => break,
            }
        }
        let known = [
            "INDEX",
            "VIEW",
            "STREAM",
            "SEQUENCE",
            "ROLE",
            "SCHEMA",
            "MODEL",
            "GRAPH",
            "BUNDLE",
            "GROUP",
            "STATISTICS",
            "PLACEMENT",
            "FUNCTION",
            "DATABASE",
        ];
        match words.last() {
            Some(last) if known.contains(&last.as_str()) => {
                self.unimplemented(&format!("{verb} {}", words.join(" ")))
            }
            _ => self.unexpected("TABLE"),
        }
    }

    fn create(&mut self) -> Result<Definition, Error> {
        self.expect("CREATE")?;
        if self.accept("DATABASE") {
            return Ok(Definition::CreateDatabase { name: self.name()? });
        }
        if !self.accept("TABLE") {
            return Err(self.unsupported_object("CREATE"));
        }
        let if_not_exists = self.accept_all(&["IF", "NOT", "EXISTS"]);
        let name = self.path()?;
        self.expect_symbol("(")?;
        let mut columns = Vec::new();
        let mut primary_key = None;
        while !self.is_symbol(")") {
            self.refuse_constraint()?;
            if self.is_keyword("PRIMARY") && self.is_keyword_ahead(1, "KEY") {
                primary_key = Some(self.primary_key()?);
            } else {
                let (column, is_key) = self.column_definition()?;
                if is_key {
                    primary_key = Some(vec![KeyPart {
                        column: column.name.clone(),
                        descending: false,
                    }]);
                }
                columns.push(column);
            }
            if !self.accept_symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        if self.is_keyword("PRIMARY") {
            if primary_key.is_some() {
                return Err(Error::invalid("the table has two primary keys").at(self.here()));
            }
            primary_key = Some(self.primary_key()?);
        }
        let primary_key = primary_key.ok_or_else(|| self.unexpected("keyword PRIMARY"))?;
        let mut interleave = None;
        while self.accept_symbol(",") {
            match self.keyword_here().as_deref() {
                Some("INTERLEAVE") => interleave = Some(self.interleave()?),
                Some("ROW") => return Err(self.unimplemented("ROW DELETION POLICY")),
                _ => return Err(self.unexpected("keyword INTERLEAVE")),
            }
        }
        if self.is_keyword("OPTIONS") {
            return Err(self.unimplemented("table OPTIONS"));
        }
        Ok(Definition::CreateTable(CreateTable {
            name,
            if_not_exists,
            columns,
            primary_key,
            interleave,
        }))
    }

    fn refuse_constraint(&self) -> Result<(), Error> {
        match self.keyword_here().as_deref() {
            Some("FOREIGN") if self.is_keyword_ahead(1, "KEY") => {
                Err(self.unimplemented("FOREIGN KEY"))
            }
            Some("CHECK") if self.is_symbol_ahead(1, "(") => Err(self.unimplemented("CHECK")),
            Some("CONSTRAINT") if self.is_keyword_ahead(2, "FOREIGN") => {
                Err(self.unimplemented("FOREIGN KEY"))
            }
            Some("CONSTRAINT") if self.is_keyword_ahead(2, "CHECK") => {
                Err(self.unimplemented("CHECK"))
            }
            Some("SYNONYM") if self.is_symbol_ahead(1, "(") => Err(self.unimplemented("SYNONYM")),
            _ => Ok(()),
        }
    }

    fn primary_key(&mut self) -> Result<Vec<KeyPart>, Error> {
        self.expect("PRIMARY")?;
        self.expect("KEY")?;
        self.expect_symbol("(")?;
        if self.accept_symbol(")") {
            return Ok(Vec::new());
        }
        let parts = self.list(|parser| {
            let column = parser.name()?;
            let descending = !parser.accept("ASC") && parser.accept("DESC");
            Ok(KeyPart { column, descending })
        })?;
        self.expect_symbol(")")?;
        Ok(parts)
    }

    fn interleave(&mut self) -> Result<Interleave, Error> {
        self.expect("INTERLEAVE")?;
        self.expect("IN")?;
        if !self.accept("PARENT") {
            return Err(self.unimplemented("INTERLEAVE IN without PARENT"));
        }
        let parent = self.path()?;
        let cascade = match self.accept_all(&["ON", "DELETE"]) {
            true => self.on_delete()?,
            false => false,
        };
        Ok(Interleave { parent, cascade })
    }

    fn on_delete(&mut self) -> Result<bool, Error> {
        if self.accept("CASCADE") {
            return Ok(true);
        }
        if self.accept_all(&["NO", "ACTION"]) {
            return Ok(false);
        }
        Err(self.unexpected("CASCADE or NO ACTION"))
    }

    /// A column, and whether PRIMARY KEY follows it.
    fn column_definition(&mut self) -> Result<(ColumnDefinition, bool), Error> {
        let name = self.name()?;
        let kind = self.type_name()?;
        let mut column = ColumnDefinition {
            name,
            kind,
            not_null: false,
            options: Vec::new(),
        };
        let mut is_key = false;
        loop {
            match self.keyword_here().as_deref() {
                Some("NOT") => {
                    self.advance();
                    self.expect("NULL")?;
                    column.not_null = true;
                }
                Some("OPTIONS") => column.options = self.options()?,
                Some("PRIMARY") if self.is_keyword_ahead(1, "KEY") => {
                    self.advance();
                    self.advance();
                    is_key = true;
                }
                Some("DEFAULT") => return Err(self.unimplemented("DEFAULT")),
                Some("AS") => return Err(self.unimplemented("generated columns")),
                Some("GENERATED" | "AUTO_INCREMENT") => {
                    return Err(self.unimplemented("IDENTITY columns"));
                }
                Some(word @ ("HIDDEN" | "PLACEMENT" | "REFERENCES" | "CHECK")) => {
                    return Err(self.unimplemented(word));
                }
                Some("ON") => return Err(self.unimplemented("ON UPDATE")),
                _ => return Ok((column, is_key)),
            }
        }
    }

    fn options(&mut self) -> Result<Vec<(Name, OptionValue)>, Error> {
        self.expect("OPTIONS")?;
        self.expect_symbol("(")?;
        if self.accept_symbol(")") {
            return Ok(Vec::new());
        }
        let options = self.list(|parser| {
            let name = parser.name()?;
            parser.expect_symbol("=")?;
            let value = match &parser.token().kind {
                TokenKind::Word { text, .. } if text.eq_ignore_ascii_case("true") => {
                    OptionValue::Bool(true)
                }
                TokenKind::Word { text, .. } if text.eq_ignore_ascii_case("false") => {
                    OptionValue::Bool(false)
                }
                TokenKind::Word { text, .. } if text.eq_ignore_ascii_case("null") => {
                    OptionValue::Null
                }
                TokenKind::Integer(text) => match text.parse() {
                    Ok(value) => OptionValue::Integer(value),
                    Err(_) => return Err(parser.unexpected("an option's value")),
                },
                TokenKind::String(text) => OptionValue::String(text.clone()),
                _ => return Err(parser.unexpected("an option's value")),
            };
            parser.advance();
            Ok((name, value))
        })?;
        self.expect_symbol(")")?;
        Ok(options)
    }

    fn drop_statement(&mut self) -> Result<Definition, Error> {
        self.expect("DROP")?;
        if !self.accept("TABLE") {
            return Err(self.unsupported_object("DROP"));
        }
        let if_exists = self.accept_all(&["IF", "EXISTS"]);
        Ok(Definition::DropTable {
            name: self.path()?,
            if_exists,
        })
    }

    fn alter(&mut self) -> Result<Definition, Error> {
        self.expect("ALTER")?;
        if !self.accept("TABLE") {
            return Err(self.unsupported_object("ALTER"));
        }
        let name = self.path()?;
        let action = match self.keyword_here().as_deref() {
            Some("ADD") => self.alter_add()?,
            Some("DROP") => self.alter_drop()?,
            Some("ALTER") => self.alter_column()?,
            Some("SET") if self.is_keyword_ahead(1, "ON") => {
                self.advance();
                self.advance();
                self.expect("DELETE")?;
                AlterTable::SetOnDelete {
                    cascade: self.on_delete()?,
                }
            }
            Some("SET") => return Err(self.unimplemented("ALTER TABLE … SET")),
            Some("RENAME") => return Err(self.unimplemented("ALTER TABLE … RENAME")),
            _ => return Err(self.unexpected("ADD, DROP, ALTER or SET")),
        };
        Ok(Definition::AlterTable { name, action })
    }

    fn alter_add(&mut self) -> Result<AlterTable, Error> {
        self.expect("ADD")?;
        self.refuse_constraint()?;
        match self.keyword_here().as_deref() {
            Some("ROW") if self.is_keyword_ahead(1, "DELETION") => {
                return Err(self.unimplemented("ROW DELETION POLICY"));
            }
            _ => {
                self.accept("COLUMN");
            }
        }
        let if_not_exists = self.accept_all(&["IF", "NOT", "EXISTS"]);
        let (column, is_key) = self.column_definition()?;
        if is_key {
            return Err(
                Error::invalid("a primary key cannot be added to a table").at(column.name.at)
            );
        }
        Ok(AlterTable::AddColumn {
            column,
            if_not_exists,
        })
    }

    fn alter_drop(&mut self) -> Result<AlterTable, Error> {
        self.expect("DROP")?;
        match self.keyword_here().as_deref() {
            Some("CONSTRAINT") => return Err(self.unimplemented("DROP CONSTRAINT")),
            Some("SYNONYM") => return Err(self.unimplemented("SYNONYM")),
            Some("ROW") if self.is_keyword_ahead(1, "DELETION") => {
                return Err(self.unimplemented("ROW DELETION POLICY"));
            }
            _ => {
                self.accept("COLUMN");
            }
        }
        let if_exists = self.accept_all(&["IF", "EXISTS"]);
        Ok(AlterTable::DropColumn {
            column: self.name()?,
            if_exists,
        })
    }

    fn alter_column(&mut self) -> Result<AlterTable, Error> {
        self.expect("ALTER")?;
        self.accept("COLUMN");
        if self.is_keyword_ahead(1, "SET") || self.is_keyword_ahead(1, "DROP") {
            let column = self.name()?;
            let is_options = self.is_keyword("SET") && self.is_keyword_ahead(1, "OPTIONS");
            if !is_options {
                return Err(self.unimplemented("ALTER COLUMN … SET or DROP DEFAULT"));
            }
            self.advance();
            return Ok(AlterTable::SetColumnOptions {
                column,
                options: self.options()?,
            });
        }
        let (column, _) = self.column_definition()?;
        Ok(AlterTable::AlterColumn(column))
    }
}
