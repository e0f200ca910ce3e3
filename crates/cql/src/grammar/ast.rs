//! Statements as they are written.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Select(Select),
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Batch(Batch),
    Transaction(Box<Transaction>),
    Use(String),
    CreateKeyspace {
        name: String,
        if_not_exists: bool,
        options: Vec<(String, OptionValue)>,
    },
    AlterKeyspace {
        name: String,
        if_exists: bool,
        options: Vec<(String, OptionValue)>,
    },
    DropKeyspace {
        name: String,
        if_exists: bool,
    },
    CreateTable(CreateTable),
    AlterTable {
        table: TableName,
        if_exists: bool,
        alteration: Alteration,
    },
    DropTable {
        table: TableName,
        if_exists: bool,
    },
    CreateType {
        name: TableName,
        if_not_exists: bool,
        fields: Vec<(String, TypeName)>,
    },
    AlterType {
        name: TableName,
        if_exists: bool,
        alteration: TypeAlteration,
    },
    DropType {
        name: TableName,
        if_exists: bool,
    },
    Truncate(TableName),
    Describe(Describe),
    /// Valid CQL that is not built: what to call it in the refusal.
    Unsupported(&'static str),
}

/// A name, with its keyspace if it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    pub keyspace: Option<String>,
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(keyspace) = &self.keyspace {
            write!(formatter, "{keyspace}.")?;
        }
        write!(formatter, "{}", self.name)
    }
}

/// An option's value, as in WITH.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    Text(String),
    Map(Vec<(String, String)>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub table: TableName,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnDefinition>,
    pub partition_key: Vec<String>,
    pub clustering_key: Vec<String>,
    /// As written in CLUSTERING ORDER BY: name and whether descending.
    pub clustering_order: Vec<(String, bool)>,
    pub options: Vec<(String, OptionValue)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDefinition {
    pub name: String,
    pub kind: TypeName,
    pub is_static: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Alteration {
    Add {
        if_not_exists: bool,
        columns: Vec<ColumnDefinition>,
    },
    Drop {
        if_exists: bool,
        columns: Vec<String>,
        timestamp: Option<i64>,
    },
    Rename {
        if_exists: bool,
        columns: Vec<(String, String)>,
    },
    Options(Vec<(String, OptionValue)>),
    /// ALTER TABLE … ALTER column TYPE …, which Cassandra has given up too.
    ChangeType,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TypeAlteration {
    Add(Vec<(String, TypeName)>),
    Rename(Vec<(String, String)>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum TypeName {
    Named {
        keyspace: Option<String>,
        name: String,
    },
    List(Box<TypeName>),
    Set(Box<TypeName>),
    Map(Box<TypeName>, Box<TypeName>),
    Tuple(Vec<TypeName>),
    Frozen(Box<TypeName>),
    Vector(Box<TypeName>, u32),
    Custom(String),
}

impl fmt::Display for TypeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypeName::Named { keyspace, name } => {
                if let Some(keyspace) = keyspace {
                    write!(formatter, "{keyspace}.")?;
                }
                write!(formatter, "{name}")
            }
            TypeName::List(element) => write!(formatter, "list<{element}>"),
            TypeName::Set(element) => write!(formatter, "set<{element}>"),
            TypeName::Map(key, value) => write!(formatter, "map<{key}, {value}>"),
            TypeName::Tuple(fields) => {
                let fields: Vec<String> = fields.iter().map(TypeName::to_string).collect();
                write!(formatter, "tuple<{}>", fields.join(", "))
            }
            TypeName::Frozen(inner) => write!(formatter, "frozen<{inner}>"),
            TypeName::Vector(element, dimension) => {
                write!(formatter, "vector<{element}, {dimension}>")
            }
            TypeName::Custom(class) => write!(formatter, "'{class}'"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    Null,
    Boolean(bool),
    Integer(String),
    Float(String),
    Text(String),
    Uuid([u8; 16]),
    Blob(Vec<u8>),
    Duration { months: i32, days: i32, nanos: i64 },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    Constant(Constant),
    /// The position of a bind marker in the statement.
    Marker(usize),
    Function {
        name: String,
        arguments: Vec<Term>,
    },
    List(Vec<Term>),
    Set(Vec<Term>),
    /// Also the empty `{}`, which may be a set.
    Map(Vec<(Term, Term)>),
    Tuple(Vec<Term>),
    /// The literal of a user-defined type.
    Fields(Vec<(String, Term)>),
    /// `(type) term`.
    Typed(TypeName, Box<Term>),
    /// Inside a transaction: a column of a row that LET has named.
    Reference(Reference),
}

/// `row.column`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub row: String,
    pub column: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Using {
    pub timestamp: Option<Term>,
    pub ttl: Option<Term>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    pub table: TableName,
    pub columns: Vec<String>,
    pub values: Vec<Term>,
    pub if_not_exists: bool,
    pub using: Using,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub table: TableName,
    pub using: Using,
    pub operations: Vec<(String, Operation)>,
    pub relations: Vec<Relation>,
    pub condition: Option<ConditionClause>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Set(Term),
    /// `column = column + term`, `column += term`.
    Add(Term),
    /// `column = term + column`.
    Prepend(Term),
    /// `column = column - term`, `column -= term`.
    Subtract(Term),
    SetElement(Term, Term),
    SetField(String, Term),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    pub table: TableName,
    pub using: Using,
    pub targets: Vec<DeleteTarget>,
    pub relations: Vec<Relation>,
    pub condition: Option<ConditionClause>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeleteTarget {
    Column(String),
    Element(String, Term),
    Field(String, String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum ConditionClause {
    Exists,
    Columns(Vec<ColumnCondition>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnCondition {
    pub column: String,
    /// Of a collection.
    pub element: Option<Term>,
    /// Of a user type.
    pub field: Option<String>,
    pub operator: Operator,
    pub values: InValues,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Contains,
    ContainsKey,
    Like,
    IsNotNull,
}

impl fmt::Display for Operator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::In => "IN",
            Operator::NotIn => "NOT IN",
            Operator::Contains => "CONTAINS",
            Operator::ContainsKey => "CONTAINS KEY",
            Operator::Like => "LIKE",
            Operator::IsNotNull => "IS NOT NULL",
        })
    }
}

/// The right-hand side of a relation.
#[derive(Clone, Debug, PartialEq)]
pub enum InValues {
    /// All operators but IN have one.
    Terms(Vec<Term>),
    /// `IN ?`: the marker holds the whole list.
    Marker(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    pub left: RelationLeft,
    pub operator: Operator,
    pub right: InValues,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RelationLeft {
    Column(String),
    /// `(a, b) > (1, 2)`.
    Columns(Vec<String>),
    Token(Vec<String>),
    /// `map[key] = value`.
    Element(String, Term),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    pub is_json: bool,
    pub is_distinct: bool,
    /// Empty for `*`.
    pub selectors: Vec<(Selector, Option<String>)>,
    pub table: TableName,
    pub relations: Vec<Relation>,
    pub group_by: Vec<String>,
    /// Name and whether descending.
    pub order_by: Vec<(String, bool)>,
    pub per_partition_limit: Option<Term>,
    pub limit: Option<Term>,
    pub allow_filtering: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    Column(String),
    /// `count(*)`, `count(1)`.
    CountRows,
    Function(String, Vec<Selector>),
    Cast(Box<Selector>, TypeName),
    Term(Term),
    Element(Box<Selector>, Term),
    Field(Box<Selector>, String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub kind: BatchKind,
    pub using: Using,
    pub statements: Vec<Statement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    Logged,
    Unlogged,
    Counter,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    pub lets: Vec<(String, Select)>,
    pub result: Option<TransactionResult>,
    /// All must hold; without any the statements are executed.
    pub conditions: Vec<TransactionCondition>,
    pub statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TransactionResult {
    Select(Select),
    References(Vec<Reference>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum TransactionCondition {
    /// Whether a row that LET has named is there.
    Row {
        row: String,
        is_null: bool,
    },
    Term {
        left: Term,
        is_null: bool,
    },
    Compare {
        left: Term,
        operator: Operator,
        right: Term,
    },
}

/// DESCRIBE, which `cqlsh` sends to the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Describe {
    Keyspaces,
    Tables,
    Types,
    Functions,
    Aggregates,
    Cluster,
    Schema {
        is_full: bool,
    },
    Keyspace(Option<String>),
    Table(TableName),
    Type(TableName),
    /// A materialized view, index, function or aggregate: there are none.
    Other(&'static str, TableName),
    /// Whatever goes by the name: a keyspace, a table, …
    Named(TableName),
}

/// A name as CQL text: quoted where it must be.
pub fn quoted(name: &str) -> String {
    let is_plain = name
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !super::lexer::is_reserved(name);
    if is_plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// A string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
