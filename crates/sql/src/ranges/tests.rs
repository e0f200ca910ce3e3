//! Key ranges against a plain filter over all rows.

use crate::test_support::Memory;
use proptest::prelude::*;

/// Two tables with the same rows; the second's key is another column, so its predicates are all filters.
fn tables(direction: [&str; 3]) -> Memory {
    let [a, b, c] = direction;
    let mut memory = Memory::new(&[
        &format!(
            "CREATE TABLE keyed (a INT64, b STRING(MAX), c FLOAT64, n INT64) PRIMARY KEY (a {a}, b {b}, c {c})"
        ),
        "CREATE TABLE plain (a INT64, b STRING(MAX), c FLOAT64, n INT64) PRIMARY KEY (n)",
    ]);
    let mut n = 0;
    let mut rows = Vec::new();
    for a in ["NULL", "-1", "0", "1", "2"] {
        for b in ["NULL", "''", "'a'", "'ab'", "'b'"] {
            for c in ["NULL", "-1.5", "0.0", "2.5"] {
                n += 1;
                rows.push(format!("({a}, {b}, {c}, {n})"));
            }
        }
    }
    for table in ["keyed", "plain"] {
        let text = format!(
            "INSERT INTO {table} (a, b, c, n) VALUES {}",
            rows.join(", ")
        );
        assert_eq!(memory.manipulate(&text).unwrap().row_count, n);
    }
    memory.page_rows = 7;
    memory
}

fn conjunct() -> impl Strategy<Value = String> {
    let operator = || prop::sample::select(vec!["=", "<", "<=", ">", ">=", "!="]);
    let a = || prop::sample::select(vec!["-1", "0", "1", "3", "NULL"]);
    let b = || prop::sample::select(vec!["''", "'a'", "'aa'", "'ab'", "'z'"]);
    let c = || prop::sample::select(vec!["-1.5", "0.0", "2.5", "1.0"]);
    prop_oneof![
        (operator(), a()).prop_map(|(operator, value)| format!("a {operator} {value}")),
        (operator(), b()).prop_map(|(operator, value)| format!("b {operator} {value}")),
        (operator(), c()).prop_map(|(operator, value)| format!("c {operator} {value}")),
        (operator(), a()).prop_map(|(operator, value)| format!("{value} {operator} a")),
        (a(), a()).prop_map(|(low, high)| format!("a BETWEEN {low} AND {high}")),
        (a(), a()).prop_map(|(one, two)| format!("a IN ({one}, {two})")),
        (b(), b()).prop_map(|(one, two)| format!("b IN UNNEST([{one}, {two}])")),
        b().prop_map(|value| format!("STARTS_WITH(b, {value})")),
        Just("a IS NULL".to_owned()),
        Just("b IS NULL".to_owned()),
        Just("b IS NOT NULL".to_owned()),
        Just("c IS NULL".to_owned()),
        Just("n > 30".to_owned()),
        (a(), b()).prop_map(|(a, b)| format!("(a = {a} OR b = {b})")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn ranges_hold_what_the_filter_holds(
        conjuncts in prop::collection::vec(conjunct(), 1..5),
        descending in prop::array::uniform3(prop::sample::select(vec!["ASC", "DESC"])),
    ) {
        let mut memory = tables(descending);
        let predicate = conjuncts.join(" AND ");
        let keyed = memory.query(&format!("SELECT n FROM keyed WHERE {predicate} ORDER BY n")).unwrap();
        let plain = memory.query(&format!("SELECT n FROM plain WHERE {predicate} ORDER BY n")).unwrap();
        prop_assert_eq!(keyed, plain, "{}", predicate);
    }

    #[test]
    fn orders_from_the_key_are_sorted(
        descending in prop::array::uniform3(prop::sample::select(vec!["ASC", "DESC"])),
        wanted in prop::array::uniform3(prop::sample::select(vec!["ASC", "DESC"])),
        columns in 1usize..4,
        predicate in prop::option::of(conjunct()),
    ) {
        let mut memory = tables(descending);
        let order: Vec<String> = ["a", "b", "c"].iter().zip(wanted).take(columns)
            .map(|(name, direction)| format!("{name} {direction}")).collect();
        let filter = predicate.map_or(String::new(), |predicate| format!("WHERE {predicate}"));
        let text = |table: &str| format!(
            "SELECT a, b, c FROM {table} {filter} ORDER BY {}, a, b, c", order.join(", ")
        );
        let keyed = memory.query(&text("keyed")).unwrap();
        let plain = memory.query(&text("plain")).unwrap();
        prop_assert_eq!(keyed, plain);
    }
}

#[test]
fn a_key_is_read_and_nothing_else() {
    let mut memory = tables(["ASC", "DESC", "ASC"]);
    for (predicate, most) in [
        ("a = 1 AND b = 'a' AND c = 2.5", 1),
        ("a IN (1, 2) AND b = 'a' AND c = 2.5", 2),
        ("a = 1 AND b > 'a'", 8),
        ("a = 1 AND b BETWEEN 'a' AND 'ab'", 8),
        ("a > 1", 20),
        ("a = NULL", 0),
    ] {
        memory.rows_read = 0;
        memory
            .query(&format!("SELECT n FROM keyed WHERE {predicate}"))
            .unwrap();
        assert!(
            memory.rows_read <= most,
            "{predicate}: {}",
            memory.rows_read
        );
    }
    memory.rows_read = 0;
    memory
        .query("SELECT n FROM keyed ORDER BY a DESC LIMIT 5")
        .unwrap();
    assert_eq!(memory.rows_read, 5);
}
