use super::*;
use crate::ast::{Body, Expression, Node, Statement};
use proptest::prelude::*;

/// An expression with every operator in parentheses.
fn shape(expression: &Expression) -> String {
    let all = |items: &[Expression], with: &str| {
        let items: Vec<String> = items.iter().map(shape).collect();
        format!("({})", items.join(with))
    };
    match &expression.node {
        Node::Null => "NULL".into(),
        Node::Bool(value) => value.to_string(),
        Node::Integer(text) | Node::Float(text) => text.clone(),
        Node::String(text) => format!("'{text}'"),
        Node::Parameter(name) => format!("@{name}"),
        Node::Name(name) => name.clone(),
        Node::Field(operand, field) => format!("{}.{}", shape(operand), field.text),
        Node::Unary(operator, operand) => format!("({operator:?} {})", shape(operand)),
        Node::Binary(operator, left, right) => {
            format!("({} {operator:?} {})", shape(left), shape(right))
        }
        Node::And(items) => all(items, " AND "),
        Node::Or(items) => all(items, " OR "),
        Node::Is {
            operand,
            what,
            negated,
        } => format!(
            "({} IS{} {what:?})",
            shape(operand),
            if *negated { " NOT" } else { "" }
        ),
        Node::Like {
            operand, pattern, ..
        } => format!("({} LIKE {})", shape(operand), shape(pattern)),
        Node::Between {
            operand, low, high, ..
        } => format!(
            "({} BETWEEN {} {})",
            shape(operand),
            shape(low),
            shape(high)
        ),
        Node::In { operand, .. } => format!("({} IN)", shape(operand)),
        Node::Call(call) => {
            let items: Vec<String> = call.arguments.iter().map(shape).collect();
            format!("{}({})", call.name, items.join(", "))
        }
        Node::Array { items, .. } => all(items, ", ").replace('(', "[").replace(')', "]"),
        other => format!("{other:?}").chars().take(12).collect(),
    }
}

fn expression(text: &str) -> String {
    let (_, statement) = parse_statement(&format!("SELECT {text}")).unwrap();
    let Statement::Query(query) = statement else {
        panic!("not a query")
    };
    let Body::Select(select) = query.body else {
        panic!("not a select")
    };
    match &select.items[0] {
        crate::ast::SelectItem::Expression { expression, .. } => shape(expression),
        other => panic!("{other:?}"),
    }
}

#[test]
fn precedence() {
    for (text, wanted) in [
        ("1 + 2 * 3 - 4", "((1 Add (2 Multiply 3)) Subtract 4)"),
        (
            "1 | 2 ^ 3 & 4 << 5 + 6",
            "(1 BitOr (2 BitXor (3 BitAnd (4 ShiftLeft (5 Add 6)))))",
        ),
        (
            "a = 1 AND b < 2 OR NOT c",
            "(((a Equal 1) AND (b Less 2)) OR (Not c))",
        ),
        ("NOT a = b", "(Not (a Equal b))"),
        ("-a.b * 2", "((Minus a.b) Multiply 2)"),
        ("-5", "-5"),
        ("a || b || 'c'", "((a Concat b) Concat 'c')"),
        ("x BETWEEN 1 AND 2 AND y", "((x BETWEEN 1 2) AND y)"),
        (
            "x IS NOT NULL AND y LIKE 'a%'",
            "((x IS NOT Null) AND (y LIKE 'a%'))",
        ),
        ("f(x, @p) IN (1, 2)", "(F(x, @p) IN)"),
        ("[1, 2]", "[1, 2]"),
        ("`select`.`b c`", "select.b c"),
    ] {
        assert_eq!(expression(text), wanted, "{text}");
    }
}

#[test]
fn errors_say_what_and_where() {
    for (text, wanted) in [
        (
            "SELEC 1",
            "Syntax error: Unexpected identifier \"SELEC\" [at 1:1]",
        ),
        (
            "SELECT 1 FROM",
            "Syntax error: Expected identifier but got end of statement [at 1:14]",
        ),
        (
            "SELECT a\nFROM t\nWHERE",
            "Syntax error: Unexpected end of statement [at 3:6]",
        ),
        (
            "SELECT (1",
            "Syntax error: Expected \",\" but got end of statement [at 1:10]",
        ),
        (
            "UPDATE t SET a = 1",
            "Syntax error: UPDATE must have a WHERE clause [at 1:19]",
        ),
        (
            "SELECT 1 2",
            "Syntax error: Expected end of input but got integer literal \"2\" [at 1:10]",
        ),
        (
            "SELECT a FROM t JOIN u",
            "JOIN must have an immediately following ON or USING clause [at 1:17]",
        ),
        (
            "SELECT 1 INTERSECT DISTINCT SELECT 2 UNION ALL SELECT 3",
            "Different set operations cannot be used in the same query without using parentheses for grouping [at 1:38]",
        ),
        (
            "MERGE INTO t",
            "the MERGE statement is not supported by Tessera yet [at 1:1]",
        ),
        (
            "FROM t |> WHERE a",
            "the FROM statement is not supported by Tessera yet [at 1:1]",
        ),
    ] {
        assert_eq!(
            parse_statement(text).unwrap_err().to_string(),
            wanted,
            "{text}"
        );
    }
}

#[test]
fn definitions() {
    let text = "CREATE TABLE IF NOT EXISTS t (a INT64 NOT NULL, b ARRAY<STRING(MAX)>, c TIMESTAMP OPTIONS \
                (allow_commit_timestamp=true),) PRIMARY KEY (a DESC), INTERLEAVE IN PARENT p ON DELETE CASCADE";
    let Definition::CreateTable(create) = parse_definition(text).unwrap() else {
        panic!("not a table")
    };
    assert!(create.if_not_exists && create.primary_key[0].descending);
    assert_eq!(create.columns.len(), 3);
    assert!(create.interleave.unwrap().cascade);
    for (text, feature) in [
        ("CREATE INDEX i ON t(a)", "CREATE INDEX"),
        (
            "CREATE UNIQUE NULL_FILTERED INDEX i ON t(a)",
            "CREATE UNIQUE NULL_FILTERED INDEX",
        ),
        (
            "CREATE OR REPLACE VIEW v SQL SECURITY INVOKER AS SELECT 1",
            "CREATE VIEW",
        ),
        ("CREATE CHANGE STREAM s FOR ALL", "CREATE CHANGE STREAM"),
        (
            "CREATE TABLE t (a INT64, FOREIGN KEY (a) REFERENCES u (b)) PRIMARY KEY (a)",
            "FOREIGN KEY",
        ),
        (
            "CREATE TABLE t (a INT64 DEFAULT (1)) PRIMARY KEY (a)",
            "DEFAULT",
        ),
        ("ALTER DATABASE d SET OPTIONS (x = 1)", "ALTER DATABASE"),
        ("GRANT SELECT ON TABLE t TO ROLE r", "the GRANT statement"),
    ] {
        let error = parse_definition(text).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{feature} is not supported by Tessera yet")),
            "{text}: {error}"
        );
    }
}

#[test]
fn depth_is_bounded() {
    let deep = [
        format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
        format!("SELECT {}1", "-(".repeat(50_000)),
        format!("SELECT {}1", "NOT ".repeat(50_000)),
        format!("SELECT {}", "[".repeat(50_000)),
        format!("SELECT 1{}", " + 1".repeat(50_000)),
        format!("SELECT CAST(1 AS {}", "ARRAY<".repeat(50_000)),
        format!("SELECT {}1", "CASE WHEN ".repeat(50_000)),
        format!("SELECT * FROM {}", "(SELECT * FROM ".repeat(50_000)),
    ];
    for text in deep {
        let error = parse_statement(&text).unwrap_err().to_string();
        assert!(error.contains("nests deeper"), "{error}");
    }
    // Long chains are not deep.
    let chain = format!("SELECT TRUE{}", " AND TRUE".repeat(20_000));
    assert!(parse_statement(&chain).is_ok());
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "SELECT", "FROM", "WHERE", "GROUP", "BY", "ORDER", "LIMIT", "t", "a", "1", "1.5", "'x'",
        "@p", "(", ")", ",", ".", "*", "+", "-", "=", "<", ">>", "AND", "OR", "NOT", "IN", "IS",
        "NULL", "LIKE", "BETWEEN", "CASE", "WHEN", "THEN", "END", "CAST", "AS", "ARRAY", "<", ">",
        "INT64", "INSERT", "INTO", "VALUES", "UPDATE", "SET", "DELETE", "STRUCT", "UNNEST",
        "EXISTS", "[", "]", "@{", "}", "WITH", "UNION", "ALL", "INTERVAL", "DATE", "CREATE",
        "TABLE", "PRIMARY", "KEY", "DROP", "ALTER", "ADD", "COLUMN", "STRING", "MAX", "OPTIONS",
        "RETURN", ";",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,80}") {
        let _ = parse_statement(&text);
        let _ = parse_definition(&text);
    }

    #[test]
    fn any_words_are_parsed_or_refused(text in words()) {
        let _ = parse_statement(&text);
        let _ = parse_statement(&format!("SELECT {text}"));
        let _ = parse_definition(&text);
        let _ = parse_definition(&format!("CREATE TABLE t ({text}"));
    }
}
