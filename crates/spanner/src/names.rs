//! Resource names, and how a database's name finds its namespace.
//!
//! A database is a namespace of the catalog. The namespace is called as the database is, so that the other
//! doors see it under that name; only when the name is taken (databases are unique within their instance, not
//! in the cluster) is it `database_instance` or `database_instance_project`. A namespace made by Spanner says
//! which database it is in a property; one made at another door is a database of that name in every instance.

use catalog::{Catalog, Namespace};
use tonic::Status;

/// The property of a namespace that holds the full name of the database that it is.
pub const DATABASE_PROPERTY: &str = "spanner/database";
/// Microseconds since the epoch.
pub const CREATE_TIME_PROPERTY: &str = "spanner/create_time";
/// Catalog properties under this prefix are instances, by full name.
pub const INSTANCE_PREFIX: &str = "spanner/instance/";

/// `projects/P/instances/I/databases/D`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseName {
    pub project: String,
    pub instance: String,
    pub database: String,
}

impl DatabaseName {
    pub fn parse(name: &str) -> Result<DatabaseName, Status> {
        match parts(name).as_deref() {
            Some(
                [
                    ("projects", project),
                    ("instances", instance),
                    ("databases", database),
                ],
            ) => Ok(DatabaseName {
                project: (*project).to_owned(),
                instance: (*instance).to_owned(),
                database: (*database).to_owned(),
            }),
            _ => Err(Status::invalid_argument(format!(
                "Invalid database name: {name:?}. It must be projects/<project>/instances/<instance>/databases/<database>"
            ))),
        }
    }

    pub fn full(&self) -> String {
        format!("{}/databases/{}", self.instance_name(), self.database)
    }

    pub fn instance_name(&self) -> String {
        format!("projects/{}/instances/{}", self.project, self.instance)
    }

    /// Names that its namespace may have, in order of preference.
    pub fn namespaces(&self) -> [String; 3] {
        let DatabaseName {
            project,
            instance,
            database,
        } = self;
        [
            database.clone(),
            format!("{database}_{instance}"),
            format!("{database}_{instance}_{project}"),
        ]
    }
}

/// `a/b/c/d` as pairs; `None` when a part is missing or empty.
fn parts(name: &str) -> Option<Vec<(&str, &str)>> {
    let parts: Vec<&str> = name.split('/').collect();
    if !parts.len().is_multiple_of(2) || parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    Some(parts.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

/// `projects/P` of a parent.
pub fn parse_project(name: &str) -> Result<&str, Status> {
    match parts(name).as_deref() {
        Some([("projects", project)]) => Ok(project),
        _ => Err(Status::invalid_argument(format!(
            "Invalid project name: {name:?}"
        ))),
    }
}

/// Checks `projects/P/instances/I` and returns (P, I).
pub fn parse_instance(name: &str) -> Result<(&str, &str), Status> {
    match parts(name).as_deref() {
        Some([("projects", project), ("instances", instance)]) => Ok((project, instance)),
        _ => Err(Status::invalid_argument(format!(
            "Invalid instance name: {name:?}"
        ))),
    }
}

/// The namespace that is a database.
pub fn find_namespace<'c>(catalog: &'c Catalog, name: &DatabaseName) -> Option<&'c Namespace> {
    let full = name.full();
    for candidate in name.namespaces() {
        if let Some(namespace) = catalog.namespaces.get(&candidate)
            && namespace.properties.get(DATABASE_PROPERTY) == Some(&full)
        {
            return Some(namespace);
        }
    }
    catalog
        .namespaces
        .get(&name.database)
        .filter(|namespace| !namespace.properties.contains_key(DATABASE_PROPERTY))
}

pub fn database_not_found(name: &str) -> Status {
    Status::not_found(format!("Database not found: {name}"))
}

/// What Spanner allows: 2 to 30 characters, lower case, digits, `_` and `-`, beginning with a letter and not
/// ending with `_` or `-`.
pub fn check_database_id(id: &str) -> Result<(), Status> {
    let bytes = id.as_bytes();
    let valid = (2..=30).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
        })
        && bytes[bytes.len() - 1].is_ascii_alphanumeric();
    match valid {
        true => Ok(()),
        false => Err(Status::invalid_argument(format!(
            "Invalid database id: {id:?}. It must have 2 to 30 characters: lower case letters, digits, underscores and \
             hyphens, beginning with a letter and ending with a letter or digit"
        ))),
    }
}

/// One page of sorted items; the token is the last item's sort key.
pub fn page<T>(items: Vec<(String, T)>, page_size: i32, page_token: &str) -> (Vec<T>, String) {
    let size = usize::try_from(page_size)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(1_000)
        .min(1_000);
    let mut rest = items
        .into_iter()
        .filter(|(key, _)| page_token.is_empty() || key.as_str() > page_token)
        .peekable();
    let mut taken = Vec::new();
    let mut last = String::new();
    while taken.len() < size
        && let Some((key, item)) = rest.next()
    {
        last = key;
        taken.push(item);
    }
    let next = match rest.peek() {
        Some(_) => last,
        None => String::new(),
    };
    (taken, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is read is what was written, and nothing else is read.
        #[test]
        fn any_name_is_refused_or_read(
            name in "(projects|instances|databases|/|[a-z]|\\PC){0,8}(/databases/d)?",
            id in "\\PC{0,32}",
        ) {
            if let Ok(parsed) = DatabaseName::parse(&name) {
                prop_assert_eq!(parsed.full(), name.as_str());
            }
            if let Ok((project, instance)) = parse_instance(&name) {
                prop_assert_eq!(format!("projects/{project}/instances/{instance}"), name.as_str());
            }
            if let Ok(project) = parse_project(&name) {
                prop_assert_eq!(format!("projects/{project}"), name);
            }
            if check_database_id(&id).is_ok() {
                let full = format!("projects/p/instances/i/databases/{id}");
                prop_assert_eq!(DatabaseName::parse(&full).map(|name| name.database).ok(), Some(id));
            }
        }
    }

    #[test]
    fn names_are_parsed_and_refused() {
        let name = DatabaseName::parse("projects/p/instances/i/databases/d").unwrap();
        assert_eq!(name.full(), "projects/p/instances/i/databases/d");
        assert_eq!(name.namespaces(), ["d", "d_i", "d_i_p"]);
        for bad in [
            "",
            "projects/p",
            "projects//instances/i/databases/d",
            "a/b/c/d/e/f/g/h",
        ] {
            assert!(DatabaseName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_follow_each_other() {
        let items = || ["a", "b", "c"].map(|name| (name.to_owned(), name)).to_vec();
        assert_eq!(page(items(), 2, ""), (vec!["a", "b"], "b".to_owned()));
        assert_eq!(page(items(), 2, "b"), (vec!["c"], String::new()));
        assert_eq!(page(items(), 3, ""), (vec!["a", "b", "c"], String::new()));
    }
}
