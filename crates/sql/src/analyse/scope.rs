//! Names in sight.

use crate::ast::Name;
use crate::error::Error;
use crate::types::SqlType;

#[derive(Clone, Debug)]
pub struct ScopeColumn {
    pub qualifier: Option<String>,
    pub name: String,
    pub kind: SqlType,
    /// USING has put another column in its place: found by its qualifier only.
    pub is_hidden: bool,
}

/// The columns of the row that an expression is evaluated over, by position.
#[derive(Clone, Debug, Default)]
pub struct NameScope<'o> {
    pub columns: Vec<ScopeColumn>,
    /// The scope around a subquery: what is found only there is a correlated reference.
    pub outer: Option<&'o NameScope<'o>>,
}

impl NameScope<'_> {
    fn matching(&self, qualifier: Option<&str>, name: &str) -> Vec<usize> {
        let same = |left: &str, right: &str| left.eq_ignore_ascii_case(right);
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, column)| same(&column.name, name))
            .filter(|(_, column)| match (qualifier, &column.qualifier) {
                (None, _) => !column.is_hidden,
                (Some(wanted), Some(own)) => same(wanted, own),
                (Some(_), None) => false,
            })
            .map(|(position, _)| position)
            .collect()
    }

    pub fn has_qualifier(&self, qualifier: &str) -> bool {
        self.columns.iter().any(|column| {
            column
                .qualifier
                .as_ref()
                .is_some_and(|own| own.eq_ignore_ascii_case(qualifier))
        })
    }

    /// The position of a column, or `None` when no column in sight has the name.
    pub fn find(&self, qualifier: Option<&str>, name: &Name) -> Result<Option<usize>, Error> {
        match self.matching(qualifier, &name.text).as_slice() {
            [] => {}
            [position] => return Ok(Some(*position)),
            _ => {
                return Err(
                    Error::invalid(format!("Column name {} is ambiguous", name.text)).at(name.at),
                );
            }
        }
        Ok(None)
    }

    /// A column of a row around this one: how many subqueries lie between, its position, and its type.
    pub fn find_outer(
        &self,
        qualifier: Option<&str>,
        name: &Name,
    ) -> Result<Option<(usize, usize, SqlType)>, Error> {
        let mut outer = self.outer;
        let mut level = 1;
        while let Some(scope) = outer {
            if let Some(position) = scope.find(qualifier, name)? {
                return Ok(Some((
                    level,
                    position,
                    scope.columns[position].kind.clone(),
                )));
            }
            outer = scope.outer;
            level += 1;
        }
        Ok(None)
    }
}
