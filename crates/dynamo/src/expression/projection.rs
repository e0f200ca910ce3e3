//! Projections: which parts of an item an answer carries.

use super::lexer::{ExpressionError, RawPath, Tokens};
use super::{Placeholders, check_overlap};
use api::document::{Item, Path, Step};
use model::Value;
use std::collections::BTreeMap;

/// A set of paths as a tree, so that each part of an item is visited once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    attributes: BTreeMap<String, Node>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Whole,
    Fields(BTreeMap<String, Node>),
    Elements(BTreeMap<u32, Node>),
}

/// A projection, and the paths that it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub projection: Projection,
    pub paths: Vec<Path>,
}

pub fn parse(text: &str, placeholders: &mut Placeholders<'_>) -> Result<Parsed, ExpressionError> {
    let mut tokens = Tokens::new(text)?;
    let mut reserved = None;
    let mut undefined = None;
    let mut paths = Vec::new();
    loop {
        let raw = RawPath::parse(&mut tokens)?;
        reserved = reserved.or(raw.reserved());
        paths.push(raw.resolve(placeholders, |name| {
            if undefined.is_none() {
                undefined = Some(name.to_owned());
            }
        }));
        if !tokens.take_symbol(",") {
            break;
        }
    }
    tokens.expect_end()?;
    if let Some(name) = reserved {
        return Err(format!(
            "Attribute name is a reserved keyword; reserved keyword: {name}"
        ));
    }
    if let Some(name) = undefined {
        return Err(format!(
            "An expression attribute name used in the document path is not defined; attribute name: {name}"
        ));
    }
    let overlaps = check_overlap(&paths);
    if let Some(error) = overlaps.overlap.or(overlaps.conflict) {
        return Err(error);
    }
    Ok(Parsed {
        projection: Projection::of(&paths),
        paths,
    })
}

impl Projection {
    /// Of paths that do not overlap.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Projection {
        let mut projection = Projection::default();
        for path in paths {
            insert(&mut projection.attributes, path.name.clone(), &path.steps);
        }
        projection
    }

    pub fn of_attributes<'n>(names: impl IntoIterator<Item = &'n String>) -> Projection {
        Projection {
            attributes: names
                .into_iter()
                .map(|name| (name.clone(), Node::Whole))
                .collect(),
        }
    }

    /// The part of an item, whose attributes `get` knows. Elements of a list keep their order and close up.
    pub fn apply<'v>(&self, get: impl Fn(&str) -> Option<&'v Value>) -> Item {
        self.attributes
            .iter()
            .filter_map(|(name, node)| Some((name.clone(), select(node, get(name)?)?)))
            .collect()
    }
}

fn insert<K: Ord>(nodes: &mut BTreeMap<K, Node>, key: K, steps: &[Step]) {
    let Some((first, rest)) = steps.split_first() else {
        nodes.insert(key, Node::Whole);
        return;
    };
    let node = nodes.entry(key).or_insert_with(|| match first {
        Step::Field(_) => Node::Fields(BTreeMap::new()),
        Step::Index(_) => Node::Elements(BTreeMap::new()),
    });
    match (node, first) {
        (Node::Fields(fields), Step::Field(name)) => insert(fields, name.clone(), rest),
        (Node::Elements(elements), Step::Index(index)) => insert(elements, *index, rest),
        // Paths overlap or conflict; the caller has refused that.
        _ => {}
    }
}

fn select(node: &Node, value: &Value) -> Option<Value> {
    match (node, value) {
        (Node::Whole, value) => Some(value.clone()),
        (Node::Fields(nodes), Value::Document(fields)) => {
            let selected: Item = nodes
                .iter()
                .filter_map(|(name, node)| Some((name.clone(), select(node, fields.get(name)?)?)))
                .collect();
            (!selected.is_empty()).then_some(Value::Document(selected))
        }
        (Node::Elements(nodes), Value::List(elements)) => {
            let selected: Vec<Value> = nodes
                .iter()
                .filter_map(|(index, node)| select(node, elements.get(*index as usize)?))
                .collect();
            (!selected.is_empty()).then_some(Value::List(selected))
        }
        _ => None,
    }
}
