//! Rules of the trees that no expression text is needed for; texts are tested with the parser, in the door.

use super::*;
use model::Number;
use proptest::prelude::*;

fn number(text: &str) -> Value {
    Value::Number(Number::parse(text).expect("a number"))
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn item(attributes: &[(&str, Value)]) -> Item {
    attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

fn operand(name: &str) -> Operand {
    Operand::Path(Path::attribute(name))
}

#[test]
fn a_missing_row_has_no_key_either() {
    let key = [("id".to_owned(), text("1"))];
    let exists = Condition::Exists(Path::attribute("id"));
    assert!(exists.holds_for(&key, Some(&Item::new())));
    assert!(!exists.holds_for(&key, None));
}

#[test]
fn sizes_are_dynamodbs() {
    for (value, size) in [
        (text("grüße"), 7),
        (Value::Bytes(vec![0; 5]), 5),
        (Value::Null, 1),
        (Value::Bool(false), 1),
        (number("0"), 1),
        (number("1"), 2),
        (number("-12.3"), 4),
        (number("1000000"), 2),
        (Value::Set(vec![text("a"), text("bc")]), 3),
        (Value::List(vec![text("a"), Value::List(vec![])]), 3 + 2 + 4),
        (Value::Document(item(&[("ab", text("c"))])), 3 + 1 + 3),
    ] {
        assert_eq!(value_size_bytes(&value), size, "{value:?}");
    }
}

#[test]
fn an_update_keeps_the_limits() {
    let set = |name: &str, value: Value| Update {
        set: vec![(
            Path::attribute(name),
            SetValue::Operand(SetOperand::Value(value)),
        )],
        ..Update::default()
    };
    let half = Value::Bytes(vec![0; 200 * 1024]);
    let first = set("a", half.clone()).apply(&Item::new()).expect("fits");
    let mut second = set("b", Value::Bytes(vec![0; 200 * 1024 - 2]));
    assert!(second.apply(&first).is_ok());
    // The key counts too.
    second.key_size_bytes = 1;
    assert_eq!(
        second.apply(&first),
        Err("Item size to update has exceeded the maximum allowed size".into())
    );
    let deep = (0..DEPTH_MAX).fold(text("x"), |inner, _| Value::List(vec![inner]));
    let at_limit = set("d", deep.clone()).apply(&Item::new()).expect("deep");
    let deeper = set("d", Value::List(vec![deep]));
    assert!(deeper.apply(&at_limit).is_err());
}

#[test]
fn only_removals_make_no_item() {
    let remove = Update {
        remove: vec![Path::attribute("a")],
        ..Update::default()
    };
    assert!(!remove.creates_item());
    assert!(Update::default().creates_item());
}

#[test]
fn the_legacy_dialect_appends_lists_and_has_its_own_words() {
    let add = |value: Value| Update {
        add: vec![(Path::attribute("a"), value)],
        dialect: Dialect::AttributeUpdates,
        ..Update::default()
    };
    let before = item(&[("a", Value::List(vec![number("1")]))]);
    let after = add(Value::List(vec![number("2")])).apply(&before);
    assert_eq!(
        after,
        Ok(item(&[("a", Value::List(vec![number("1"), number("2")]))]))
    );
    assert_eq!(
        add(number("1")).apply(&before),
        Err("Type mismatch for attribute to update".into())
    );
}

#[test]
fn arithmetic_stays_exact_or_fails() {
    let plus = |left: &str, right: &str| {
        let operand = |text: &str| SetOperand::Value(number(text));
        Update {
            set: vec![(
                Path::attribute("n"),
                SetValue::Plus(operand(left), operand(right)),
            )],
            ..Update::default()
        }
        .apply(&Item::new())
    };
    assert_eq!(plus("0.1", "0.2"), Ok(item(&[("n", number("0.3"))])));
    assert!(plus("9e125", "9e125").is_err_and(|error| error.starts_with("Number overflow")));
    assert!(plus("1e38", "0.1").is_err_and(|error| error.contains("38 significant digits")));
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|value| Value::Number(Number::from(i64::from(value)))),
        "[a-c]{0,3}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::Bytes),
        prop::collection::btree_set("[a-c]{1,2}", 1..3)
            .prop_map(|members| Value::Set(members.into_iter().map(Value::Text).collect())),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::List),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(Value::Document),
        ]
    })
}

fn any_item() -> impl Strategy<Value = Item> {
    prop::collection::btree_map("[a-c]", value(), 0..4)
}

fn path() -> impl Strategy<Value = Path> {
    let step = prop_oneof![
        (0u32..4).prop_map(Step::Index),
        "[a-c]".prop_map(Step::Field),
    ];
    ("[a-c]", prop::collection::vec(step, 0..3)).prop_map(|(name, steps)| Path { name, steps })
}

proptest! {
    /// An update yields an item or a message, never a panic, whatever it finds; and what it sets is there.
    #[test]
    fn a_set_is_read_back(before in any_item(), path in path(), value in value()) {
        let update = Update {
            set: vec![(path.clone(), SetValue::Operand(SetOperand::Value(value.clone())))],
            ..Update::default()
        };
        if let Ok(after) = update.apply(&before) {
            let at_end = matches!(path.steps.last(), Some(Step::Index(_)));
            let found = path.resolve(&Attributes::of(&after)).cloned();
            // Behind its end a list takes the value as its next element.
            prop_assert!(found == Some(value) || (at_end && found.is_none()));
        }
    }

    #[test]
    fn a_removal_is_final_and_repeatable(before in any_item(), path in path()) {
        let update = Update { remove: vec![path.clone()], ..Update::default() };
        if let Ok(after) = update.apply(&before) {
            let is_field = !matches!(path.steps.last(), Some(Step::Index(_)));
            if is_field {
                prop_assert_eq!(path.resolve(&Attributes::of(&after)), None);
                prop_assert_eq!(update.apply(&after), Ok(after));
            }
        }
    }

    /// `<>` is the opposite of `=`, and an order holds in at most one direction.
    #[test]
    fn comparisons_are_consistent(item in any_item()) {
        let compare = |comparator, left: &str, right: &str| Condition::Compare {
            left: operand(left),
            comparator,
            right: operand(right),
        }
        .holds(&item);
        prop_assert_ne!(
            compare(Comparator::Equal, "a", "b"),
            compare(Comparator::NotEqual, "a", "b")
        );
        let less = compare(Comparator::Less, "a", "b");
        let greater = compare(Comparator::Greater, "a", "b");
        prop_assert!(!(less && greater));
        prop_assert_eq!(less, compare(Comparator::Greater, "b", "a"));
        if compare(Comparator::LessOrEqual, "a", "b") {
            prop_assert!(less || compare(Comparator::Equal, "a", "b"));
        }
    }

    /// Trees travel between nodes.
    #[test]
    fn trees_survive_their_encoding(path in path(), value in value()) {
        let condition = Condition::Or(vec![
            Condition::Exists(path.clone()),
            Condition::In { value: Operand::Size(Box::new(operand("a"))), candidates: vec![Operand::Value(value.clone())] },
        ]);
        let bytes = minicbor::to_vec(&condition).expect("encodes");
        prop_assert_eq!(minicbor::decode::<Condition>(&bytes).expect("decodes"), condition);
        let update = Update { add: vec![(path.clone(), value)], remove: vec![path], ..Update::default() };
        let bytes = minicbor::to_vec(&update).expect("encodes");
        prop_assert_eq!(minicbor::decode::<Update>(&bytes).expect("decodes"), update);
    }
}
