//! Expressions.

use super::coercion::{Draft, Loose, literal, null};
use super::scope::NameScope;
use super::{Analyser, ParameterType};
use crate::ast::{self, BinaryOperator, InSet, IndexAccess, IsWhat, Name, UnaryOperator};
use crate::error::{Error, Offset};
use crate::functions;
use crate::plan::SubqueryForm;
use crate::typed::{Comparison, Expression, Node};
use crate::types::SqlType;
use crate::value;
use model::Value;

impl<'a> Analyser<'a> {
    pub(super) fn expression(
        &mut self,
        text: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<Expression, Error> {
        let draft = self.draft(text, scope)?;
        self.settle(draft)
    }

    pub(super) fn condition(
        &mut self,
        text: &ast::Expression,
        scope: &NameScope<'_>,
        clause: &str,
    ) -> Result<Expression, Error> {
        let draft = self.draft(text, scope)?;
        if !self.can_coerce(&draft, &SqlType::Bool) {
            return Err(Error::invalid(format!(
                "{clause} should return type BOOL, but returns type {}",
                draft.kind()
            ))
            .at(text.at));
        }
        self.coerce(draft, &SqlType::Bool)
    }

    pub(super) fn drafts(
        &mut self,
        texts: &[ast::Expression],
        scope: &NameScope<'_>,
    ) -> Result<Vec<Draft>, Error> {
        texts.iter().map(|text| self.draft(text, scope)).collect()
    }

    pub(super) fn draft(
        &mut self,
        text: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let mut draft = self
            .draft_node(text, scope)
            .map_err(|error| error.at(text.at))?;
        if draft.expression.at == 0 {
            draft.expression.at = text.at;
        }
        if draft.loose == Loose::No {
            draft.expression = draft.expression.folded();
        }
        Ok(draft)
    }

    fn draft_node(
        &mut self,
        text: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        use ast::Node as N;
        let at = text.at;
        let firm = |node: Node, kind: SqlType| Ok(Draft::firm(Expression { kind, node, at }));
        match &text.node {
            N::Null
            | N::Bool(_)
            | N::Integer(_)
            | N::Float(_)
            | N::String(_)
            | N::Bytes(_)
            | N::Typed(..) => literal(text),
            N::Parameter(name) => self.parameter(name, at),
            N::Name(name) => self.name(name, at, scope),
            N::Field(operand, field) => self.field(operand, field, scope),
            N::Index {
                array,
                access,
                index,
            } => self.index(array, *access, index, scope),
            N::Unary(operator, operand) => self.unary(*operator, operand, scope),
            N::Binary(operator, left, right) => self.binary(*operator, left, right, scope),
            N::And(items) => {
                let items = self.conditions(items, scope, "AND")?;
                firm(Node::And(items), SqlType::Bool)
            }
            N::Or(items) => {
                let items = self.conditions(items, scope, "OR")?;
                firm(Node::Or(items), SqlType::Bool)
            }
            N::Is {
                operand,
                what,
                negated,
            } => {
                let node = self.is(operand, *what, scope)?;
                firm(negate(node, *negated, at), SqlType::Bool)
            }
            N::Like {
                operand,
                pattern,
                negated,
            } => {
                let node = self.like(operand, pattern, scope)?;
                firm(negate(node, *negated, at), SqlType::Bool)
            }
            N::Between {
                operand,
                low,
                high,
                negated,
            } => {
                let node = self.between([operand, low, high], scope)?;
                firm(negate(node, *negated, at), SqlType::Bool)
            }
            N::In {
                operand,
                among,
                negated,
            } => {
                let node = self.in_set(operand, among, scope)?;
                firm(negate(node, *negated, at), SqlType::Bool)
            }
            N::Case {
                operand,
                whens,
                otherwise,
            } => self.case(operand.as_deref(), whens, otherwise.as_deref(), scope),
            N::Cast { operand, to, safe } => self.cast(operand, to, *safe, scope),
            N::Extract {
                part,
                operand,
                zone,
            } => self.extract(part, operand, zone.as_deref(), scope),
            N::Call(call) => self.call(call, at, scope),
            N::Array { element, items } => self.array(element.as_ref(), items, scope),
            N::Struct(fields) => self.structure(fields, at, scope),
            N::Interval(..) => Err(Error::unimplemented("the type INTERVAL")),
            N::Exists(query) => {
                let (node, _) = self.subquery(query, SubqueryForm::Exists, scope)?;
                firm(node, SqlType::Bool)
            }
            N::Subquery(query) => {
                let (node, kind) = self.subquery(query, SubqueryForm::Scalar, scope)?;
                firm(node, kind)
            }
            N::ArraySubquery(query) => {
                let (node, kind) = self.subquery(query, SubqueryForm::Array, scope)?;
                firm(node, SqlType::array(kind))
            }
            N::Default => Err(Error::invalid("Unexpected keyword DEFAULT")),
        }
    }

    fn is(
        &mut self,
        operand: &ast::Expression,
        what: IsWhat,
        scope: &NameScope<'_>,
    ) -> Result<Node, Error> {
        Ok(match what {
            IsWhat::Null => Node::IsNull(Box::new(self.expression(operand, scope)?)),
            IsWhat::True | IsWhat::False => Node::IsBool(
                Box::new(self.condition(operand, scope, "IS TRUE and IS FALSE")?),
                what == IsWhat::True,
            ),
        })
    }

    fn like(
        &mut self,
        operand: &ast::Expression,
        pattern: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<Node, Error> {
        let sides = vec![self.draft(operand, scope)?, self.draft(pattern, scope)?];
        let (mut sides, kind) = self.coerce_all(sides, "LIKE")?;
        if !matches!(kind, SqlType::String | SqlType::Bytes) {
            return Err(Error::invalid(format!(
                "No matching signature for operator LIKE for argument type {kind}"
            )));
        }
        let pattern = Box::new(sides.remove(1));
        Ok(Node::Like(Box::new(sides.remove(0)), pattern))
    }

    /// `a BETWEEN b AND c` is `a >= b AND a <= c`.
    fn between(
        &mut self,
        texts: [&ast::Expression; 3],
        scope: &NameScope<'_>,
    ) -> Result<Node, Error> {
        let mut drafts = Vec::new();
        for text in texts {
            drafts.push(self.draft(text, scope)?);
        }
        let (sides, kind) = self.coerce_all(drafts, "BETWEEN")?;
        must_order(&kind, "BETWEEN")?;
        let compare = |comparison, side: usize| Expression {
            kind: SqlType::Bool,
            at: sides[0].at,
            node: Node::Compare(
                comparison,
                Box::new(sides[0].clone()),
                Box::new(sides[side].clone()),
            ),
        };
        Ok(Node::And(vec![
            compare(Comparison::GreaterOrEqual, 1),
            compare(Comparison::LessOrEqual, 2),
        ]))
    }

    fn cast(
        &mut self,
        operand: &ast::Expression,
        to: &ast::TypeName,
        safe: bool,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let to = SqlType::of_name(to)?;
        let draft = self.draft(operand, scope)?;
        if matches!(
            draft.loose,
            Loose::Null | Loose::Parameter(_) | Loose::EmptyArray
        ) {
            return Ok(Draft::firm(self.coerce(draft, &to)?));
        }
        if !value::can_cast(draft.kind(), &to) {
            return Err(value::cannot_cast(draft.kind(), &to));
        }
        let operand = Box::new(self.settle(draft)?);
        Ok(Draft::firm(Expression {
            kind: to,
            node: Node::Cast { operand, safe },
            at: 0,
        }))
    }

    fn structure(
        &mut self,
        fields: &[(ast::Expression, Option<Name>)],
        at: Offset,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let mut kinds = Vec::new();
        let mut values = Vec::new();
        for (field, name) in fields {
            let value = self.expression(field, scope)?;
            let name = name
                .as_ref()
                .map_or(String::new(), |name| name.text.clone());
            kinds.push((name, value.kind.clone()));
            values.push(value);
        }
        Ok(Draft::firm(Expression {
            kind: SqlType::Struct(kinds),
            node: Node::Struct(values),
            at,
        }))
    }

    fn conditions(
        &mut self,
        items: &[ast::Expression],
        scope: &NameScope<'_>,
        operator: &str,
    ) -> Result<Vec<Expression>, Error> {
        items
            .iter()
            .map(|item| self.condition(item, scope, &format!("Operands of {operator}")))
            .collect()
    }

    fn parameter(&mut self, name: &str, at: Offset) -> Result<Draft, Error> {
        let parameters = self.environment.parameters;
        match parameters.find(name) {
            None => Err(Error::invalid(format!(
                "No parameter found for binding: {name}"
            ))),
            Some(ParameterType::Declared(kind)) => {
                let value = parameters.value(name, &kind)?;
                let loose = match (&kind, &value) {
                    (SqlType::String, Value::Text(_)) => Loose::TextLiteral,
                    _ => Loose::No,
                };
                let expression = Expression {
                    kind,
                    node: Node::Literal(value),
                    at,
                };
                Ok(Draft { expression, loose })
            }
            Some(ParameterType::Undeclared(kind)) => Ok(Draft {
                expression: Expression {
                    kind,
                    node: Node::Literal(Value::Null),
                    at,
                },
                loose: Loose::Parameter(name.to_owned()),
            }),
        }
    }

    fn name(&mut self, name: &str, at: Offset, scope: &NameScope<'_>) -> Result<Draft, Error> {
        let name = Name {
            text: name.to_owned(),
            at,
        };
        if let Some(position) = scope.find(None, &name)? {
            return Ok(column(scope, position, at));
        }
        match self.outer_column(None, &name, scope)? {
            Some(outer) => Ok(outer),
            None if scope.has_qualifier(&name.text) => {
                Err(Error::unimplemented("a table's row as a value"))
            }
            None => Err(Error::invalid(format!("Unrecognized name: {}", name.text))),
        }
    }

    fn field(
        &mut self,
        operand: &ast::Expression,
        field: &Name,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        if let ast::Node::Name(qualifier) = &operand.node {
            if let Some(position) = scope.find(Some(qualifier), field)? {
                return Ok(column(scope, position, operand.at));
            }
            if !scope.has_qualifier(qualifier)
                && let Some(outer) = self.outer_column(Some(qualifier), field, scope)?
            {
                return Ok(outer);
            }
            if scope.has_qualifier(qualifier) {
                return Err(Error::invalid(format!(
                    "Name {} not found inside {qualifier}",
                    field.text
                ))
                .at(field.at));
            }
        }
        let operand = self.expression(operand, scope)?;
        let SqlType::Struct(fields) = &operand.kind else {
            return Err(Error::invalid(format!(
                "Cannot access field {} on a value with type {}",
                field.text, operand.kind
            ))
            .at(field.at));
        };
        let found = fields
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case(&field.text));
        let Some(index) = found else {
            return Err(Error::invalid(format!(
                "Field name {} does not exist in {}",
                field.text, operand.kind
            ))
            .at(field.at));
        };
        let kind = fields[index].1.clone();
        Ok(Draft::firm(Expression {
            kind,
            at: operand.at,
            node: Node::Field(Box::new(operand), index),
        }))
    }

    fn index(
        &mut self,
        array: &ast::Expression,
        access: IndexAccess,
        index: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let array = self.expression(array, scope)?;
        let index = self.draft(index, scope)?;
        let index = self.coerce(index, &SqlType::Int64)?;
        let SqlType::Array(element) = &array.kind else {
            return Err(match array.kind {
                SqlType::Json => Error::unimplemented("JSON subscripts"),
                _ => Error::invalid(format!(
                    "Element access using [] is not supported on values of type {}",
                    array.kind
                )),
            });
        };
        let kind = (**element).clone();
        let base = match access {
            IndexAccess::Offset | IndexAccess::SafeOffset => 0,
            IndexAccess::Ordinal | IndexAccess::SafeOrdinal => 1,
        };
        let safe = matches!(access, IndexAccess::SafeOffset | IndexAccess::SafeOrdinal);
        Ok(Draft::firm(Expression {
            kind,
            at: array.at,
            node: Node::Index {
                array: Box::new(array),
                index: Box::new(index),
                base,
                safe,
            },
        }))
    }

    fn unary(
        &mut self,
        operator: UnaryOperator,
        operand: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        match operator {
            UnaryOperator::Not => {
                let at = operand.at;
                let operand = self.condition(operand, scope, "The operand of NOT")?;
                Ok(Draft::firm(Expression {
                    kind: SqlType::Bool,
                    node: Node::Not(Box::new(operand)),
                    at,
                }))
            }
            UnaryOperator::Plus => {
                let draft = self.draft(operand, scope)?;
                match draft.kind().is_numeric() || draft.loose == Loose::Null {
                    true => Ok(draft),
                    false => Err(Error::invalid(format!(
                        "No matching signature for operator + for argument type {}",
                        draft.kind()
                    ))),
                }
            }
            UnaryOperator::Minus => {
                let at = operand.at;
                let draft = self.draft(operand, scope)?;
                let loose = draft.loose.clone();
                let mut negated = self.function("u-", vec![draft], at)?;
                if matches!(loose, Loose::IntegerLiteral | Loose::FloatLiteral) {
                    negated.expression = negated.expression.folded();
                    negated.loose = loose;
                }
                Ok(negated)
            }
            UnaryOperator::BitNot => {
                let draft = self.draft(operand, scope)?;
                self.function("~", vec![draft], operand.at)
            }
        }
    }

    fn binary(
        &mut self,
        operator: BinaryOperator,
        left: &ast::Expression,
        right: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let at = left.at;
        let drafts = vec![self.draft(left, scope)?, self.draft(right, scope)?];
        let comparison = match operator {
            BinaryOperator::Equal => Comparison::Equal,
            BinaryOperator::NotEqual => Comparison::NotEqual,
            BinaryOperator::Less => Comparison::Less,
            BinaryOperator::LessOrEqual => Comparison::LessOrEqual,
            BinaryOperator::Greater => Comparison::Greater,
            BinaryOperator::GreaterOrEqual => Comparison::GreaterOrEqual,
            BinaryOperator::Concat => {
                if let SqlType::Array(_) = drafts[0].kind() {
                    return self.array_concat(drafts);
                }
                return self.function("CONCAT", drafts, at);
            }
            other => return self.function(symbol(other), drafts, at),
        };
        let (mut sides, kind) = self.coerce_all(drafts, "a comparison")?;
        match comparison {
            Comparison::Equal | Comparison::NotEqual if !kind.is_comparable() => {
                return Err(Error::invalid(format!(
                    "Equality is not defined for arguments of type {kind}"
                )));
            }
            Comparison::Equal | Comparison::NotEqual => {}
            _ => must_order(&kind, "a comparison")?,
        }
        let right = Box::new(sides.remove(1));
        let left = Box::new(sides.remove(0));
        Ok(Draft::firm(Expression {
            kind: SqlType::Bool,
            node: Node::Compare(comparison, left, right),
            at,
        }))
    }

    fn in_set(
        &mut self,
        operand: &ast::Expression,
        among: &InSet,
        scope: &NameScope<'_>,
    ) -> Result<Node, Error> {
        match among {
            InSet::List(items) => {
                let mut drafts = vec![self.draft(operand, scope)?];
                drafts.extend(self.drafts(items, scope)?);
                let (mut sides, kind) = self.coerce_all(drafts, "IN")?;
                must_compare(&kind)?;
                let operand = Box::new(sides.remove(0));
                Ok(Node::In(operand, sides))
            }
            InSet::Unnest(array) => {
                let operand = self.expression(operand, scope)?;
                let array = self.draft(array, scope)?;
                let wanted = SqlType::array(operand.kind.clone());
                let own = match array.kind() {
                    SqlType::Array(element) if array.loose == Loose::No => {
                        operand.kind.supertype(element)
                    }
                    _ => Some(operand.kind.clone()),
                };
                let Some(kind) = own.filter(SqlType::is_comparable) else {
                    return Err(Error::invalid(format!(
                        "Cannot execute IN UNNEST with types {} and {}",
                        operand.kind,
                        array.kind()
                    )));
                };
                let array = match array.loose {
                    Loose::No => cast_array(self.settle(array)?, &kind),
                    _ => self.coerce(array, &wanted)?,
                };
                let operand = self.coerce(Draft::firm(operand), &kind)?;
                Ok(Node::InArray(Box::new(operand), Box::new(array)))
            }
            InSet::Query(query) => {
                let operand = self.draft(operand, scope)?;
                let (node, kind) = self.subquery(query, SubqueryForm::Array, scope)?;
                let array = Expression {
                    kind: SqlType::array(kind.clone()),
                    node,
                    at: query.at,
                };
                let common = match self.can_coerce(&operand, &kind) {
                    true => kind,
                    false => operand.kind().supertype(&kind).ok_or_else(|| {
                        Error::invalid(format!(
                            "Cannot execute IN subquery with types {} and {kind}",
                            operand.kind()
                        ))
                    })?,
                };
                must_compare(&common)?;
                let operand = self.coerce(operand, &common)?;
                let array = cast_array(array, &common);
                Ok(Node::InArray(Box::new(operand), Box::new(array)))
            }
        }
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expression>,
        whens: &[(ast::Expression, ast::Expression)],
        otherwise: Option<&ast::Expression>,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let mut conditions = Vec::new();
        match operand {
            None => {
                for (when, _) in whens {
                    conditions.push(self.condition(when, scope, "CASE WHEN")?);
                }
            }
            Some(operand) => {
                let mut drafts = vec![self.draft(operand, scope)?];
                for (when, _) in whens {
                    drafts.push(self.draft(when, scope)?);
                }
                let (mut sides, kind) = self.coerce_all(drafts, "CASE")?;
                must_compare(&kind)?;
                let operand = sides.remove(0);
                conditions.extend(sides.into_iter().map(|side| Expression {
                    kind: SqlType::Bool,
                    at: side.at,
                    node: Node::Compare(
                        Comparison::Equal,
                        Box::new(operand.clone()),
                        Box::new(side),
                    ),
                }));
            }
        }
        let mut results = Vec::new();
        for (_, then) in whens {
            results.push(self.draft(then, scope)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.draft(otherwise, scope)?,
            None => null(0),
        });
        let (mut results, kind) = self.coerce_all(results, "the results of CASE")?;
        let otherwise = Box::new(results.pop().unwrap_or_else(|| null(0).expression));
        let whens = conditions.into_iter().zip(results).collect();
        Ok(Draft::firm(Expression {
            kind,
            node: Node::Case(whens, otherwise),
            at: 0,
        }))
    }

    fn array(
        &mut self,
        element: Option<&ast::TypeName>,
        items: &[ast::Expression],
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let drafts = self.drafts(items, scope)?;
        let (items, kind) = match element {
            Some(element) => {
                let kind = SqlType::of_name(element)?;
                let items: Result<Vec<_>, Error> = drafts
                    .into_iter()
                    .map(|draft| self.coerce(draft, &kind))
                    .collect();
                (items?, kind)
            }
            None if drafts.is_empty() => {
                let kind = SqlType::array(SqlType::Int64);
                return Ok(Draft {
                    expression: Expression::literal(Value::List(Vec::new()), kind),
                    loose: Loose::EmptyArray,
                });
            }
            None => self.coerce_all(drafts, "the elements of an array")?,
        };
        if matches!(kind, SqlType::Array(_)) {
            return Err(Error::invalid(
                "Cannot construct array with element type ARRAY because nested arrays are not supported",
            ));
        }
        Ok(Draft::firm(Expression {
            kind: SqlType::array(kind),
            node: Node::Array(items),
            at: 0,
        }))
    }

    fn extract(
        &mut self,
        part: &Name,
        operand: &ast::Expression,
        zone: Option<&ast::Expression>,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        let Some(found) = functions::DatePart::parse(&part.text) else {
            return Err(Error::invalid(format!(
                "A valid date part name is required, not {}",
                part.text
            ))
            .at(part.at));
        };
        let operand = self.expression(operand, scope)?;
        if !matches!(operand.kind, SqlType::Date | SqlType::Timestamp) {
            return Err(Error::invalid(format!(
                "EXTRACT does not support arguments of type {}",
                operand.kind
            )));
        }
        let zone = match zone {
            Some(zone) => {
                let draft = self.draft(zone, scope)?;
                self.coerce(draft, &SqlType::String)?
            }
            None => Expression::literal(
                Value::Text(value::DEFAULT_TIME_ZONE.to_owned()),
                SqlType::String,
            ),
        };
        let (function, kind) = super::call::extract_function(found);
        Ok(Draft::firm(Expression {
            kind,
            at: operand.at,
            node: Node::Call(function, vec![operand, zone]),
        }))
    }
}

fn column(scope: &NameScope<'_>, position: usize, at: Offset) -> Draft {
    Draft::firm(Expression {
        kind: scope.columns[position].kind.clone(),
        node: Node::Column(position),
        at,
    })
}

fn negate(node: Node, negated: bool, at: Offset) -> Node {
    match negated {
        false => node,
        true => Node::Not(Box::new(Expression {
            kind: SqlType::Bool,
            node,
            at,
        })),
    }
}

fn cast_array(array: Expression, element: &SqlType) -> Expression {
    array.cast(&SqlType::array(element.clone())).folded()
}

fn must_order(kind: &SqlType, what: &str) -> Result<(), Error> {
    match kind.is_orderable() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{what} is not defined for arguments of type {kind}"
        ))),
    }
}

fn must_compare(kind: &SqlType) -> Result<(), Error> {
    match kind.is_comparable() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "Equality is not defined for arguments of type {kind}"
        ))),
    }
}

fn symbol(operator: BinaryOperator) -> &'static str {
    match operator {
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Add => "+",
        BinaryOperator::Subtract => "-",
        BinaryOperator::ShiftLeft => "<<",
        BinaryOperator::ShiftRight => ">>",
        BinaryOperator::BitAnd => "&",
        BinaryOperator::BitXor => "^",
        BinaryOperator::BitOr => "|",
        _ => "?",
    }
}
