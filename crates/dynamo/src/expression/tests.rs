//! Golden cases: expressions as clients write them, what they mean for an item, and the service's words for
//! those it refuses.

use super::*;
use crate::wire::attribute::{AttributeMap, write_item};
use crate::wire::decode::body;
use crate::wire::writer::Writer;
use proptest::prelude::*;

const NAMES: &str = r##"{"#n":"name","#d":"a.b","#s":"size"}"##;
const VALUES: &str = r#"{":s":{"S":"abc"},":p":{"S":"ab"},":one":{"N":"1"},":two":{"N":"2"},":t":{"BOOL":true},
    ":ss":{"SS":["x","y"]},":x":{"SS":["x"]},":l":{"L":[{"N":"7"}]},":N":{"S":"N"},":bad":{"S":"ZZ"},":b":{"B":"AQI="}}"#;
const ITEM: &str = r#"{"name":{"S":"abcdef"},"a.b":{"N":"5"},"n":{"N":"1.0"},"tags":{"SS":["x","y"]},
    "seq":{"L":[{"N":"10"},{"M":{"k":{"S":"v"}}},{"S":"end"}]},"doc":{"M":{"deep":{"N":"3"}}},"nul":{"NULL":true}}"#;

fn item(text: &str) -> document::Item {
    body::<AttributeMap>(text).expect("an item").item
}

fn shown(item: &document::Item) -> String {
    let mut writer = Writer::default();
    write_item(&mut writer, item);
    writer.finish()
}

fn with_placeholders<T>(use_them: impl FnOnce(&mut Placeholders<'_>) -> T) -> T {
    let names: Map<String> = body(NAMES).expect("names");
    let values: Map<Attribute> = body(VALUES).expect("values");
    let mut placeholders = Placeholders::new(Some(&names), Some(&values)).expect("placeholders");
    use_them(&mut placeholders)
}

fn condition(text: &str) -> Result<bool, String> {
    let parsed = with_placeholders(|placeholders| condition::parse(text, placeholders))?;
    Ok(parsed.condition.holds(&item(ITEM)))
}

fn update(text: &str) -> Result<String, String> {
    let parsed = with_placeholders(|placeholders| update::parse(text, placeholders))?;
    parsed
        .update
        .apply(&item(ITEM))
        .map(|after| {
            // Only what the update has changed.
            let before = item(ITEM);
            let removed: Vec<&str> = before
                .keys()
                .filter(|name| !after.contains_key(*name))
                .map(String::as_str)
                .collect();
            let changed = after
                .iter()
                .filter(|(name, value)| before.get(*name) != Some(value))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            format!("{} -{}", shown(&changed), removed.join(","))
        })
        .map_err(|message| format!("apply: {message}"))
}

fn projection(text: &str) -> Result<String, String> {
    let parsed = with_placeholders(|placeholders| projection::parse(text, placeholders))?;
    let item = item(ITEM);
    Ok(shown(&parsed.projection.apply(|name| item.get(name))))
}

#[test]
fn conditions_hold_or_not() {
    for (text, expected) in [
        ("#n = :s", false),
        ("begins_with(#n, :p)", true),
        ("begins_with ( #n , :s ) and n = :one", true),
        ("n <> :one OR NOT contains(#n, :s)", false),
        ("absent <> :one", true),
        ("absent = :one", false),
        ("n < :s", false),
        ("n BETWEEN :one AND :two AND n IN (:two, :one)", true),
        (":one <= n", true),
        ("#d > doc.deep", true),
        ("seq[1].k = :s", false),
        (
            "attribute_exists(seq[2]) AND attribute_not_exists(seq[3])",
            true,
        ),
        ("attribute_type(n, :N)", true),
        ("attribute_not_exists(nul)", false),
        (
            "size(#n) > :two and size(seq) > :two and size(#n)>size(seq)",
            true,
        ),
        ("size(n) = :one", false),
        ("contains(tags, :p)", false),
        ("tags = :ss", true),
        ("(n = :one) AND (NOT (n = :two))", true),
        ("not n = :two and n = :one", true),
        ("n = :two or n = :one and n = :two", false),
        ("(n = :two or n = :one) and n = :one", true),
        ("(doc).deep > :two", true),
        ("(n) = (:one)", true),
    ] {
        assert_eq!(condition(text), Ok(expected), "{text}");
    }
}

#[test]
fn conditions_are_refused() {
    for (text, message) in [
        ("", "The expression can not be empty;"),
        ("n", "Syntax error; token: \"<EOF>\", near: \"n\""),
        (
            "n = :one AND",
            "Syntax error; token: \"<EOF>\", near: \"AND\"",
        ),
        (
            "n = = :one",
            "Syntax error; token: \"=\", near: \"= = :one\"",
        ),
        ("n = 1", "Syntax error; token: \"1\", near: \"= 1\""),
        ("a-b = :one", "Syntax error; token: \"-\", near: \"a-b\""),
        ("((n = :one))", "The expression has redundant parentheses;"),
        ("nope(n)", "Invalid function name; function: nope"),
        (
            "name = :one and bytes = :nope",
            "Attribute name is a reserved keyword; reserved keyword: name",
        ),
        (
            "n = :nope",
            "An expression attribute value used in expression is not defined; attribute value: :nope",
        ),
        (
            "#nope = :one",
            "An expression attribute name used in the document path is not defined; attribute name: #nope",
        ),
        (
            "size(n)",
            "The function is not allowed to be used this way in an expression; function: size",
        ),
        (
            "contains(n, :one) = :one",
            "The function is not allowed to be used this way in an expression; function: contains",
        ),
        (
            "begins_with(n)",
            "Incorrect number of operands for operator or function; operator or function: begins_with, \
             number of operands: 1",
        ),
        (
            "begins_with(n, :one)",
            "Incorrect operand type for operator or function; operator or function: begins_with, \
             operand type: N",
        ),
        (
            "attribute_exists(:one)",
            "Operator or function requires a document path; operator or function: attribute_exists",
        ),
        (
            "attribute_type(n, :bad)",
            "Invalid attribute type name found; type: ZZ, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}",
        ),
        (
            "n = n",
            "The first operand must be distinct from the remaining operands for this operator or function; \
             operator: =, first operand: [n]",
        ),
        (
            "n BETWEEN :two AND :one",
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower \
             bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
        ),
        (
            "n < :t",
            "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL",
        ),
    ] {
        assert_eq!(condition(text), Err(message.to_string()), "{text}");
    }
    let deep = format!("{}n = :one{}", "NOT (".repeat(200), ")".repeat(200));
    assert!(condition(&deep).is_err());
    let wide = vec!["n = :one"; 302].join(" or ");
    assert!(condition(&wide).is_err());
}

#[test]
fn updates_read_the_item_as_it_was() {
    for (text, expected) in [
        ("SET z = n, n = :two", r#"{"n":{"N":"2"},"z":{"N":"1"}} -"#),
        ("SET n = n + :one", r#"{"n":{"N":"2"}} -"#),
        ("set n = :one - #d", r#"{"n":{"N":"-4"}} -"#),
        (
            "SET z = if_not_exists(zz, :one) + n",
            r#"{"z":{"N":"2"}} -"#,
        ),
        (
            "SET doc.#n = :s",
            r#"{"doc":{"M":{"deep":{"N":"3"},"name":{"S":"abc"}}}} -"#,
        ),
        (
            "SET seq[9] = :two, seq[5] = :one REMOVE seq[0]",
            r#"{"seq":{"L":[{"M":{"k":{"S":"v"}}},{"S":"end"},{"N":"1"},{"N":"2"}]}} -"#,
        ),
        (
            "REMOVE seq[2], seq[0], seq[7]",
            r#"{"seq":{"L":[{"M":{"k":{"S":"v"}}}]}} -"#,
        ),
        (
            "SET z = list_append(:l, list_append(:l, :l))",
            r#"{"z":{"L":[{"N":"7"},{"N":"7"},{"N":"7"}]}} -"#,
        ),
        (
            "ADD n :two, more :one",
            r#"{"more":{"N":"1"},"n":{"N":"3"}} -"#,
        ),
        ("DELETE tags :x", r#"{"tags":{"SS":["y"]}} -"#),
        ("DELETE tags :ss REMOVE nul, nothing", r#"{} -nul,tags"#),
        ("ADD tags :ss", r#"{} -"#),
    ] {
        assert_eq!(update(text), Ok(expected.to_string()), "{text}");
    }
}

#[test]
fn updates_are_refused() {
    for (text, message) in [
        (
            "SET n = :one SET b = :two",
            "The \"SET\" section can only be used once in an update expression;",
        ),
        (
            "SET seq[0] = :one, seq = :l",
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path \
             one: [seq, [0]], path two: [seq]",
        ),
        (
            "SET seq[0] = :one, seq.x = :l",
            "Two document paths conflict with each other; must remove or rewrite one of these paths; path \
             one: [seq, [0]], path two: [seq, x]",
        ),
        (
            "SET n = absent",
            "apply: The provided expression refers to an attribute that does not exist in the item",
        ),
        (
            "SET n = #n + :one",
            "apply: An operand in the update expression has an incorrect data type",
        ),
        (
            "SET q.r = :one",
            "apply: The document path provided in the update expression is invalid for update",
        ),
        (
            "SET n.r = :one",
            "apply: The document path provided in the update expression is invalid for update",
        ),
        (
            "ADD #n :one",
            "apply: An operand in the update expression has an incorrect data type",
        ),
        (
            "ADD n :s",
            "Incorrect operand type for operator or function; operator: ADD, operand type: STRING",
        ),
        (
            "SET n = :s + :one",
            "Incorrect operand type for operator or function; operator or function: +, operand type: S",
        ),
        ("SET n", "Syntax error; token: \"<EOF>\", near: \"n\""),
        ("n = :one", "Syntax error; token: \"n\", near: \"n =\""),
        (
            "SET size = :one",
            "Attribute name is a reserved keyword; reserved keyword: size",
        ),
    ] {
        assert_eq!(update(text), Err(message.to_string()), "{text}");
    }
}

#[test]
fn projections_close_up() {
    for (text, expected) in [
        ("n, absent", r#"{"n":{"N":"1"}}"#),
        (
            "seq[2], seq[0], doc.nope",
            r#"{"seq":{"L":[{"N":"10"},{"S":"end"}]}}"#,
        ),
        (
            "seq[1].k,doc.deep",
            r#"{"doc":{"M":{"deep":{"N":"3"}}},"seq":{"L":[{"M":{"k":{"S":"v"}}}]}}"#,
        ),
        ("#d", r#"{"a.b":{"N":"5"}}"#),
    ] {
        assert_eq!(projection(text), Ok(expected.to_string()), "{text}");
    }
    assert_eq!(
        projection("doc, doc.deep"),
        Err(
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path \
             one: [doc], path two: [doc, deep]"
                .into()
        )
    );
}

#[test]
fn key_conditions_are_narrow() {
    let parse = |text: &str| {
        let parsed = with_placeholders(|placeholders| condition::parse(text, placeholders))?;
        let comparisons = key_condition::comparisons(&parsed.condition)?;
        key_condition::check(&comparisons)?;
        Ok::<_, String>(
            comparisons
                .iter()
                .map(|comparison| {
                    format!("{} {}", comparison.attribute, comparison.operator.name())
                })
                .collect::<Vec<_>>()
                .join(", "),
        )
    };
    assert_eq!(
        parse("n = :one AND begins_with(#n, :p)"),
        Ok("n EQ, name BEGINS_WITH".into())
    );
    assert_eq!(parse(":two > n"), Ok("n LT".into()));
    assert_eq!(parse("n BETWEEN :one AND :two"), Ok("n BETWEEN".into()));
    for (text, message) in [
        (
            "n = :one OR n = :two",
            "Invalid operator used in KeyConditionExpression: OR",
        ),
        (
            "contains(n, :one)",
            "Invalid operator used in KeyConditionExpression: contains",
        ),
        (
            "n = :one AND n = :two",
            "KeyConditionExpressions must only contain one condition per key",
        ),
        (
            "size(n) = :one",
            "KeyConditionExpressions cannot contain nested operations",
        ),
        (
            "doc.deep = :one",
            "KeyConditionExpressions cannot have conditions on nested attributes",
        ),
    ] {
        assert_eq!(parse(text), Err(message.to_string()), "{text}");
    }
}

#[test]
fn placeholders_must_be_used_and_well_named() {
    let unused = with_placeholders(|placeholders| {
        condition::parse("#n = :s", placeholders).expect("parses");
        std::mem::take(placeholders).finish()
    });
    assert_eq!(
        unused,
        Err(
            "Value provided in ExpressionAttributeNames unused in expressions: keys: {#d, #s}"
                .into()
        )
    );
    let names: Map<String> = body(r#"{"n":"x"}"#).expect("names");
    assert_eq!(
        Placeholders::new(Some(&names), None).err(),
        Some("ExpressionAttributeNames contains invalid key: Syntax error; key: \"n\"".into())
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z#:0-9 ().,<>=+\\[\\]-]{0,40}") {
        let _ = condition(&text);
        let _ = update(&text);
        let _ = projection(&text);
    }

    #[test]
    fn any_words_in_any_order(words in prop::collection::vec(prop::sample::select(vec![
        "SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "IN", "BETWEEN", "(", ")", ",", ".", "[", "0", "]",
        "=", "<>", "+", "-", "n", "seq", "map", "#n", ":one", ":l", ":ss", "size", "contains", "if_not_exists",
    ]), 0..14)) {
        let text = words.join(" ");
        let _ = condition(&text);
        let _ = update(&text);
    }
}
