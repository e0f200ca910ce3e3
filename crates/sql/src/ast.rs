//! The tree that the parser makes: the text's own structure, with no names resolved and no types.

use crate::error::Offset;

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Query(Query),
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Definition(Definition),
}

/// A name with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    pub text: String,
    pub at: Offset,
}

/// A dotted name: `INFORMATION_SCHEMA.TABLES`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    pub parts: Vec<Name>,
}

impl Path {
    pub fn at(&self) -> Offset {
        self.parts.first().map_or(0, |name| name.at)
    }

    pub fn dotted(&self) -> String {
        let parts: Vec<&str> = self.parts.iter().map(|name| name.text.as_str()).collect();
        parts.join(".")
    }
}

// ---- queries ----

#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub with: Vec<(Name, Query)>,
    pub body: Body,
    pub order_by: Vec<OrderItem>,
    pub limit: Option<Expression>,
    pub offset: Option<Expression>,
    pub for_update: bool,
    pub at: Offset,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Select(Box<Select>),
    Query(Box<Query>),
    Set {
        operator: SetOperator,
        /// DISTINCT, not ALL.
        distinct: bool,
        bodies: Vec<Body>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOperator {
    Union,
    Intersect,
    Except,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    pub distinct: bool,
    pub items: Vec<SelectItem>,
    pub from: Option<From>,
    pub filter: Option<Expression>,
    pub group_by: Vec<Expression>,
    pub having: Option<Expression>,
    pub at: Offset,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SelectItem {
    /// `*` or `name.*`, less the columns of EXCEPT.
    Star {
        of: Option<Name>,
        except: Vec<Name>,
        at: Offset,
    },
    Expression {
        expression: Expression,
        alias: Option<Name>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum From {
    Table {
        path: Path,
        hints: Vec<Hint>,
        alias: Option<Name>,
    },
    Query {
        query: Box<Query>,
        alias: Option<Name>,
    },
    Unnest {
        array: Expression,
        alias: Option<Name>,
        offset: Option<Name>,
    },
    Join {
        left: Box<From>,
        right: Box<From>,
        kind: JoinKind,
        condition: JoinCondition,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Also CROSS, and the comma.
    Inner,
    Left,
    Right,
    Full,
}

#[derive(Clone, Debug, PartialEq)]
pub enum JoinCondition {
    None,
    On(Expression),
    Using(Vec<Name>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hint {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderItem {
    pub expression: Expression,
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

// ---- expressions ----

#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub node: Node,
    pub at: Offset,
    /// Of the tree below, itself included: bounded, so that later passes may recurse.
    pub depth: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    /// As written.
    Integer(String),
    Float(String),
    String(String),
    Bytes(Vec<u8>),
    /// `DATE '2020-01-01'` and its like.
    Typed(TypeName, String),
    Parameter(String),
    Name(String),
    Field(Box<Expression>, Name),
    Index {
        array: Box<Expression>,
        access: IndexAccess,
        index: Box<Expression>,
    },
    Unary(UnaryOperator, Box<Expression>),
    Binary(BinaryOperator, Box<Expression>, Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Is {
        operand: Box<Expression>,
        what: IsWhat,
        negated: bool,
    },
    Like {
        operand: Box<Expression>,
        pattern: Box<Expression>,
        negated: bool,
    },
    Between {
        operand: Box<Expression>,
        low: Box<Expression>,
        high: Box<Expression>,
        negated: bool,
    },
    In {
        operand: Box<Expression>,
        among: InSet,
        negated: bool,
    },
    Case {
        operand: Option<Box<Expression>>,
        whens: Vec<(Expression, Expression)>,
        otherwise: Option<Box<Expression>>,
    },
    Cast {
        operand: Box<Expression>,
        to: TypeName,
        safe: bool,
    },
    Extract {
        part: Name,
        operand: Box<Expression>,
        zone: Option<Box<Expression>>,
    },
    Call(Call),
    Array {
        element: Option<TypeName>,
        items: Vec<Expression>,
    },
    /// `STRUCT(…)` or a parenthesised list.
    Struct(Vec<(Expression, Option<Name>)>),
    /// `INTERVAL 1 DAY`, as an argument of a date function.
    Interval(Box<Expression>, Name),
    Exists(Box<Query>),
    Subquery(Box<Query>),
    ArraySubquery(Box<Query>),
    /// DEFAULT in an INSERT's row or an UPDATE's SET.
    Default,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InSet {
    List(Vec<Expression>),
    Unnest(Box<Expression>),
    Query(Box<Query>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsWhat {
    Null,
    True,
    False,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexAccess {
    Offset,
    Ordinal,
    SafeOffset,
    SafeOrdinal,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Upper case; `SAFE.` and `NET.` prefixes are kept apart in `safe` and the name.
    pub name: String,
    pub safe: bool,
    pub star: bool,
    pub distinct: bool,
    pub arguments: Vec<Expression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOperator {
    Plus,
    Minus,
    BitNot,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOperator {
    Multiply,
    Divide,
    Concat,
    Add,
    Subtract,
    ShiftLeft,
    ShiftRight,
    BitAnd,
    BitXor,
    BitOr,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A type as written; lengths only in definitions.
#[derive(Clone, Debug, PartialEq)]
pub enum TypeName {
    Scalar {
        name: String,
        length: Option<TypeLength>,
        at: Offset,
    },
    Array(Box<TypeName>),
    Struct(Vec<(Option<Name>, TypeName)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeLength {
    Max,
    Exactly(u64),
}

// ---- data manipulation ----

#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    pub table: Path,
    pub conflict: OnConflict,
    pub columns: Vec<Name>,
    pub source: InsertSource,
    pub returning: Option<ThenReturn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    Refuse,
    Ignore,
    Update,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    Values(Vec<Vec<Expression>>),
    Query(Box<Query>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub table: Path,
    pub alias: Option<Name>,
    pub assignments: Vec<(Path, Expression)>,
    pub filter: Expression,
    pub returning: Option<ThenReturn>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    pub table: Path,
    pub alias: Option<Name>,
    pub filter: Expression,
    pub returning: Option<ThenReturn>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ThenReturn {
    /// The name of the column that says INSERT, UPDATE or DELETE.
    pub action: Option<Name>,
    pub items: Vec<SelectItem>,
}

// ---- data definition ----

#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    CreateDatabase { name: Name },
    CreateTable(CreateTable),
    DropTable { name: Path, if_exists: bool },
    AlterTable { name: Path, action: AlterTable },
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub name: Path,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnDefinition>,
    pub primary_key: Vec<KeyPart>,
    pub interleave: Option<Interleave>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDefinition {
    pub name: Name,
    pub kind: TypeName,
    pub not_null: bool,
    pub options: Vec<(Name, OptionValue)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    Null,
    Bool(bool),
    Integer(i64),
    String(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct KeyPart {
    pub column: Name,
    pub descending: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Interleave {
    pub parent: Path,
    pub cascade: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AlterTable {
    AddColumn {
        column: ColumnDefinition,
        if_not_exists: bool,
    },
    DropColumn {
        column: Name,
        if_exists: bool,
    },
    /// ALTER COLUMN with a type.
    AlterColumn(ColumnDefinition),
    SetColumnOptions {
        column: Name,
        options: Vec<(Name, OptionValue)>,
    },
    SetOnDelete {
        cascade: bool,
    },
}
