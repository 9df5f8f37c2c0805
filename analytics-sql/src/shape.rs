//! The shape of a statement, measured before anything is planned, because planning
//! is what a bad shape makes expensive.
//!
//! - Depth: conditions and set operations chained a hundred thousand long are walked
//!   by functions that call themselves, on a stack that ends.
//! - Tables read once the WITH parts are put in, each as often as it is named: thirty
//!   parts that each name the one before twice are a billion.
//! - Types with a length: arguments of a table's function are computed while planning.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, ObjectName, Query, SetExpr, Statement as Sql, TypedString,
    Visit, Visitor,
};

use crate::error::Error;

/// Why types with a length are refused.
pub(crate) const FIXED: &str =
    "types of a fixed length, such as `BIGINT[3]`, are not possible here; `BIGINT[]` is";
/// Brackets in the name of a type.
const BRACKETS: usize = 32;

/// What is not too much.
pub(crate) struct Bounds {
    /// Operators, functions and queries inside one another.
    pub(crate) depth: usize,
    /// SELECTs that UNION, EXCEPT and INTERSECT put together.
    pub(crate) chain: usize,
    /// Tables read.
    pub(crate) tables: usize,
}

/// # Errors
/// [`Error::TooLarge`] says what is too much.
pub(crate) fn check(statement: &Statement, bounds: &Bounds) -> Result<(), Error> {
    let Some(sql) = innermost(statement, bounds.depth) else {
        return Err(Error::TooLarge("the query is nested too deeply".to_owned()));
    };
    let mut depth = Depth { bounds, now: 0 };
    if let ControlFlow::Break(what) = sql.visit(&mut depth) {
        return Err(Error::TooLarge(what));
    }
    if let ControlFlow::Break(error) = sql.visit(&mut Types) {
        return Err(*error);
    }
    if tables(sql) > bounds.tables {
        let most = bounds.tables;
        return Err(Error::TooLarge(format!(
            "the query reads more than {most} tables; parts of WITH count each time they are used"
        )));
    }
    Ok(())
}

/// What EXPLAIN explains.
fn innermost(statement: &Statement, most: usize) -> Option<&Sql> {
    let mut statement = statement;
    for _ in 0..most {
        match statement {
            Statement::Statement(sql) => return Some(sql),
            Statement::Explain(explain) => statement = &explain.statement,
            _ => return None,
        }
    }
    None
}

/// Leaves as soon as it is too deep, so that its own stack is bounded too.
struct Depth<'a> {
    bounds: &'a Bounds,
    now: usize,
}

impl Depth<'_> {
    fn down(&mut self) -> ControlFlow<String> {
        self.now += 1;
        let most = self.bounds.depth;
        if self.now > most {
            return ControlFlow::Break(format!(
                "the query is deeper than {most} operators; `IN (...)` and `text ~ 'a|b|c'` are not deep"
            ));
        }
        ControlFlow::Continue(())
    }

    const fn up(&mut self) -> ControlFlow<String> {
        self.now -= 1;
        ControlFlow::Continue(())
    }
}

impl Visitor for Depth<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        // `a UNION b UNION c` has `a UNION b` on its left.
        let most = self.bounds.chain;
        let mut chain = 1;
        let mut body = &*query.body;
        while let SetExpr::SetOperation { left, .. } = body {
            chain += 1;
            if chain > most {
                return ControlFlow::Break(format!(
                    "the query puts more than {most} SELECTs together with UNION, EXCEPT or INTERSECT"
                ));
            }
            body = left;
        }
        self.down()
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<String> {
        self.up()
    }

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<String> {
        self.down()
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<String> {
        self.up()
    }
}

/// Looks at the types that are named.
struct Types;

impl Visitor for Types {
    type Break = Box<Error>;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Box<Error>> {
        let named = match expr {
            Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                Some(data_type)
            }
            Expr::Convert { data_type, .. } => data_type.as_ref(),
            _ => None,
        };
        named
            .and_then(unfit)
            .map_or(ControlFlow::Continue(()), |error| {
                ControlFlow::Break(Box::new(error))
            })
    }
}

/// By the type's name, which shows every type inside it.
fn unfit(named: &DataType) -> Option<Error> {
    // Lists of lists have no depth for the parser, but for what prints them.
    let mut inner = named;
    for _ in 0..BRACKETS {
        match inner {
            DataType::Array(
                ArrayElemTypeDef::SquareBracket(element, _)
                | ArrayElemTypeDef::AngleBracket(element)
                | ArrayElemTypeDef::Parenthesis(element),
            ) => inner = element,
            _ => break,
        }
    }
    let name = if matches!(inner, DataType::Array(_)) {
        "[".repeat(BRACKETS + 1)
    } else {
        named.to_string()
    };
    if name.matches(['[', '<', '(']).count() > BRACKETS {
        return Some(Error::TooLarge(format!(
            "a type in the query has more than {BRACKETS} brackets"
        )));
    }
    let sized = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    name.split('[')
        .skip(1)
        .any(sized)
        .then(|| Error::invalid(FIXED))
}

/// Tables that the statement reads. Never too few; a name that several parts share
/// counts as the widest of them.
fn tables(sql: &Sql) -> usize {
    let mut parts = Parts::default();
    let _ = sql.visit(&mut parts);
    sum(sql, &parts, &mut HashMap::new())
}

/// The queries that WITH gives a name.
#[derive(Default)]
struct Parts(HashMap<String, Vec<Query>>);

impl Visitor for Parts {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for part in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = part.alias.name.value.to_lowercase();
            self.0
                .entry(name)
                .or_default()
                .push(Query::clone(&part.query));
        }
        ControlFlow::Continue(())
    }
}

/// The tables of everything named in here, but for what only defines a part.
fn sum<V: Visit>(node: &V, parts: &Parts, known: &mut HashMap<String, usize>) -> usize {
    let mut names = Names::default();
    let _ = node.visit(&mut names);
    let weights = names.outside.iter().map(|name| weight(name, parts, known));
    weights.fold(0, usize::saturating_add)
}

/// What is named outside of the bodies of WITH parts.
#[derive(Default)]
struct Names {
    outside: Vec<ObjectName>,
    bodies: HashSet<*const Query>,
    inside: usize,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.bodies.contains(&std::ptr::from_ref(query)) {
            self.inside += 1;
        }
        let parts = query.with.iter().flat_map(|with| &with.cte_tables);
        self.bodies
            .extend(parts.map(|part| std::ptr::from_ref(&*part.query)));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.bodies.contains(&std::ptr::from_ref(query)) {
            self.inside -= 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        if self.inside == 0 {
            self.outside.push(name.clone());
        }
        ControlFlow::Continue(())
    }
}

/// The tables behind a name. A part that names itself counts as one while it is counted.
fn weight(name: &ObjectName, parts: &Parts, known: &mut HashMap<String, usize>) -> usize {
    let [only] = name.0.as_slice() else { return 1 };
    let Some(name) = only.as_ident().map(|ident| ident.value.to_lowercase()) else {
        return 1;
    };
    let Some(queries) = parts.0.get(&name) else {
        return 1;
    };
    if let Some(&weight) = known.get(&name) {
        return weight;
    }
    known.insert(name.clone(), 1);
    let widest = queries
        .iter()
        .map(|query| sum(query, parts, known))
        .max()
        .unwrap_or(1)
        .max(1);
    known.insert(name, widest);
    widest
}
