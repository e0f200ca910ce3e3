//! Expressions.

use super::scope::NameScope;
use super::{Analyser, ParameterType};
use crate::ast::{self, BinaryOperator, InSet, IndexAccess, IsWhat, Name, UnaryOperator};
use crate::error::{Error, Offset};
use crate::functions;
use crate::plan::{Subquery, SubqueryForm};
use crate::typed::{Comparison, Expression, Node, Scope};
use crate::types::SqlType;
use crate::value;
use model::Value;

/// An expression whose type may still bend to what it meets.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub expression: Expression,
    pub loose: Loose,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loose {
    No,
    Null,
    /// An undeclared parameter; the expression is a placeholder of its natural type.
    Parameter(String),
    EmptyArray,
    IntegerLiteral,
    FloatLiteral,
    TextLiteral,
}

impl Draft {
    pub fn firm(expression: Expression) -> Draft {
        Draft {
            expression,
            loose: Loose::No,
        }
    }

    pub fn kind(&self) -> &SqlType {
        &self.expression.kind
    }

    pub fn at(&self) -> Offset {
        self.expression.at
    }
}

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

    /// Ends looseness: the expression keeps its natural type.
    pub(super) fn settle(&mut self, draft: Draft) -> Result<Expression, Error> {
        let kind = draft.kind().clone();
        self.coerce(draft, &kind)
    }

    pub(super) fn can_coerce(&self, draft: &Draft, to: &SqlType) -> bool {
        use SqlType as T;
        match &draft.loose {
            Loose::Null | Loose::Parameter(_) => true,
            Loose::EmptyArray => matches!(to, T::Array(_)),
            Loose::IntegerLiteral => {
                matches!(to, T::Int64 | T::Float32 | T::Float64 | T::Numeric)
            }
            Loose::FloatLiteral => matches!(to, T::Float32 | T::Float64 | T::Numeric),
            Loose::TextLiteral => matches!(to, T::String | T::Date | T::Timestamp | T::Uuid),
            Loose::No => draft.kind().coerces_to(to),
        }
    }

    pub(super) fn coerce(&mut self, draft: Draft, to: &SqlType) -> Result<Expression, Error> {
        let at = draft.at();
        if !self.can_coerce(&draft, to) {
            return Err(
                Error::invalid(format!("Expected type {to}; found {}", draft.kind())).at(at),
            );
        }
        let Draft { expression, loose } = draft;
        let value = match loose {
            Loose::Null => Value::Null,
            Loose::EmptyArray => Value::List(Vec::new()),
            Loose::Parameter(name) => self
                .environment
                .parameters
                .value(&name, to)
                .map_err(|error| error.at(at))?,
            _ if expression.kind == *to => return Ok(expression),
            _ => {
                let cast = Expression {
                    kind: to.clone(),
                    at,
                    node: Node::Cast {
                        operand: Box::new(expression),
                        safe: false,
                    },
                };
                // A literal that cannot be read as the type is the statement's fault, not the data's.
                return match (loose, fold(cast)) {
                    (Loose::No, folded) => Ok(folded),
                    (_, folded) if folded.as_literal().is_some() => Ok(folded),
                    (_, folded) => match folded.evaluate(Scope {
                        row: &[],
                        slots: &[],
                    }) {
                        Err(error) => Err(Error::invalid(error.to_string()).at(at)),
                        Ok(_) => Ok(folded),
                    },
                };
            }
        };
        Ok(Expression {
            kind: to.clone(),
            node: Node::Literal(value),
            at,
        })
    }

    /// The type that all of these can be given.
    pub(super) fn common_type(&self, drafts: &[Draft], what: &str) -> Result<SqlType, Error> {
        let at = drafts.first().map_or(0, Draft::at);
        let mismatch = |left: &SqlType, right: &SqlType| {
            Error::invalid(format!("No common type for {what}: {left} and {right}")).at(at)
        };
        let mut common: Option<SqlType> = None;
        for draft in drafts.iter().filter(|draft| draft.loose == Loose::No) {
            common = Some(match common {
                None => draft.kind().clone(),
                Some(kind) => kind
                    .supertype(draft.kind())
                    .ok_or_else(|| mismatch(&kind, draft.kind()))?,
            });
        }
        if let Some(kind) = &common {
            for draft in drafts {
                if !self.can_coerce(draft, kind) {
                    return match kind.supertype(draft.kind()) {
                        Some(kind) => Ok(kind),
                        None => Err(mismatch(kind, draft.kind())),
                    };
                }
            }
            return Ok(kind.clone());
        }
        // Only loose ones: literals decide, then parameters by their natural types.
        let is_untyped = |draft: &&Draft| matches!(draft.loose, Loose::Null | Loose::EmptyArray);
        let is_parameter = |draft: &&Draft| matches!(draft.loose, Loose::Parameter(_));
        let literals = drafts
            .iter()
            .filter(|draft| !is_untyped(draft) && !is_parameter(draft));
        for draft in literals {
            common = Some(match common {
                None => draft.kind().clone(),
                Some(kind) => kind
                    .supertype(draft.kind())
                    .ok_or_else(|| mismatch(&kind, draft.kind()))?,
            });
        }
        let natural = || {
            let parameter = drafts.iter().find(is_parameter);
            let any =
                parameter.or_else(|| drafts.iter().find(|draft| draft.loose == Loose::EmptyArray));
            any.or(drafts.first()).map(|draft| draft.kind().clone())
        };
        Ok(common.or_else(natural).unwrap_or(SqlType::Int64))
    }

    pub(super) fn coerce_all(
        &mut self,
        drafts: Vec<Draft>,
        what: &str,
    ) -> Result<(Vec<Expression>, SqlType), Error> {
        let kind = self.common_type(&drafts, what)?;
        let coerced: Result<Vec<Expression>, Error> = drafts
            .into_iter()
            .map(|draft| self.coerce(draft, &kind))
            .collect();
        Ok((coerced?, kind))
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
            draft.expression = fold(draft.expression);
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
                let node = match what {
                    IsWhat::Null => Node::IsNull(Box::new(self.expression(operand, scope)?)),
                    IsWhat::True | IsWhat::False => Node::IsBool(
                        Box::new(self.condition(operand, scope, "IS TRUE and IS FALSE")?),
                        *what == IsWhat::True,
                    ),
                };
                firm(negate(node, *negated, at), SqlType::Bool)
            }
            N::Like {
                operand,
                pattern,
                negated,
            } => {
                let sides = self.drafts(&[(**operand).clone(), (**pattern).clone()], scope)?;
                let (mut sides, kind) = self.coerce_all(sides, "LIKE")?;
                if !matches!(kind, SqlType::String | SqlType::Bytes) {
                    return Err(Error::invalid(format!(
                        "No matching signature for operator LIKE for argument type {kind}"
                    )));
                }
                let pattern = Box::new(sides.remove(1));
                let node = Node::Like(Box::new(sides.remove(0)), pattern);
                firm(negate(node, *negated, at), SqlType::Bool)
            }
            N::Between {
                operand,
                low,
                high,
                negated,
            } => {
                let texts = [(**operand).clone(), (**low).clone(), (**high).clone()];
                let drafts = self.drafts(&texts, scope)?;
                let (sides, kind) = self.coerce_all(drafts, "BETWEEN")?;
                must_order(&kind, "BETWEEN")?;
                let compare = |comparison, side: usize| Expression {
                    kind: SqlType::Bool,
                    at,
                    node: Node::Compare(
                        comparison,
                        Box::new(sides[0].clone()),
                        Box::new(sides[side].clone()),
                    ),
                };
                let both = vec![
                    compare(Comparison::GreaterOrEqual, 1),
                    compare(Comparison::LessOrEqual, 2),
                ];
                firm(negate(Node::And(both), *negated, at), SqlType::Bool)
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
            N::Cast { operand, to, safe } => {
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
                let safe = *safe;
                firm(Node::Cast { operand, safe }, to)
            }
            N::Extract {
                part,
                operand,
                zone,
            } => self.extract(part, operand, zone.as_deref(), scope),
            N::Call(call) => self.call(call, at, scope),
            N::Array { element, items } => self.array(element.as_ref(), items, scope),
            N::Struct(fields) => {
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
                firm(Node::Struct(values), SqlType::Struct(kinds))
            }
            N::Interval(..) => Err(Error::unimplemented("the type INTERVAL")),
            N::Exists(query) => {
                let (slot, _) = self.subquery(query, SubqueryForm::Exists, scope)?;
                firm(Node::Slot(slot), SqlType::Bool)
            }
            N::Subquery(query) => {
                let (slot, kind) = self.subquery(query, SubqueryForm::Scalar, scope)?;
                firm(Node::Slot(slot), kind)
            }
            N::ArraySubquery(query) => {
                let (slot, kind) = self.subquery(query, SubqueryForm::Array, scope)?;
                firm(Node::Slot(slot), SqlType::array(kind))
            }
            N::Default => Err(Error::invalid("Unexpected keyword DEFAULT")),
        }
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
        match scope.find(None, &name)? {
            Some(position) => Ok(column(scope, position, at)),
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
                    negated.expression = fold(negated.expression);
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
                let (slot, kind) = self.subquery(query, SubqueryForm::Array, scope)?;
                let array = Expression {
                    kind: SqlType::array(kind.clone()),
                    node: Node::Slot(slot),
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

    /// Analyses a subquery into a slot.
    fn subquery(
        &mut self,
        query: &ast::Query,
        form: SubqueryForm,
        scope: &NameScope<'_>,
    ) -> Result<(usize, SqlType), Error> {
        let outer_aggregates = self.aggregates.take();
        let result = self.query(query, Some(scope));
        self.aggregates = outer_aggregates;
        let (root, columns) = result?;
        let kind = match (form, columns.as_slice()) {
            (SubqueryForm::Exists, _) => SqlType::Bool,
            (_, [column]) => column.kind.clone(),
            _ => {
                return Err(Error::invalid(
                    "A scalar, IN or ARRAY subquery cannot have more than one column",
                )
                .at(query.at));
            }
        };
        self.subqueries.push(Subquery { form, root });
        Ok((self.subqueries.len() - 1, kind))
    }
}

pub(super) fn null(at: Offset) -> Draft {
    Draft {
        expression: Expression {
            kind: SqlType::Int64,
            node: Node::Literal(Value::Null),
            at,
        },
        loose: Loose::Null,
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
    let kind = SqlType::array(element.clone());
    if array.kind == kind {
        return array;
    }
    let at = array.at;
    fold(Expression {
        kind,
        at,
        node: Node::Cast {
            operand: Box::new(array),
            safe: false,
        },
    })
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

fn literal(text: &ast::Expression) -> Result<Draft, Error> {
    use ast::Node as N;
    let at = text.at;
    let make = |value: Value, kind: SqlType, loose: Loose| {
        Ok(Draft {
            expression: Expression {
                kind,
                node: Node::Literal(value),
                at,
            },
            loose,
        })
    };
    match &text.node {
        N::Bool(value) => make(Value::Bool(*value), SqlType::Bool, Loose::No),
        N::Integer(digits) => match value::parse_integer(digits) {
            Some(value) => make(Value::Int(value), SqlType::Int64, Loose::IntegerLiteral),
            None => Err(Error::invalid(format!("Invalid integer literal: {digits}"))),
        },
        N::Float(digits) => match value::parse_float(digits) {
            Some(value) => make(Value::Float64(value), SqlType::Float64, Loose::FloatLiteral),
            None => Err(Error::invalid(format!(
                "Invalid floating point literal: {digits}"
            ))),
        },
        N::String(value) => make(
            Value::Text(value.clone()),
            SqlType::String,
            Loose::TextLiteral,
        ),
        N::Bytes(value) => make(Value::Bytes(value.clone()), SqlType::Bytes, Loose::No),
        N::Typed(kind, written) => {
            let kind = SqlType::of_name(kind)?;
            let value = match kind {
                SqlType::Json => value::normal_json(written)
                    .map(Value::Json)
                    .ok_or_else(|| Error::invalid("Invalid JSON literal"))?,
                _ => value::cast(&Value::Text(written.clone()), &SqlType::String, &kind)
                    .map_err(|_| Error::invalid(format!("Invalid {kind} literal")))?,
            };
            make(value, kind, Loose::No)
        }
        _ => Ok(null(at)),
    }
}

/// Evaluates what is constant; what fails stays, and fails when it runs.
pub(super) fn fold(expression: Expression) -> Expression {
    if matches!(expression.node, Node::Literal(_)) || !expression.is_constant() {
        return expression;
    }
    let scope = Scope {
        row: &[],
        slots: &[],
    };
    match expression.evaluate(scope) {
        Ok(value) => Expression {
            node: Node::Literal(value),
            ..expression
        },
        Err(_) => expression,
    }
}
