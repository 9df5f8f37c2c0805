//! The shape of a statement, measured before anything is planned, because planning
//! is what a bad shape makes expensive.
//!
//! - Depth: conditions and set operations chained a hundred thousand long are walked
//!   by functions that call themselves, on a stack that ends.
//! - Tables read once the WITH parts are put in, each as often as it is named: thirty
//!   parts that each name the one before twice are a billion.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, SetExpr, Statement as Sql, Visit, Visitor, visit_relations,
};

use crate::error::Error;

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

/// The tables of everything named in here. Those of a part that is being counted already,
/// because it names itself, are one.
fn sum<V: Visit>(node: &V, parts: &Parts, known: &mut HashMap<String, usize>) -> usize {
    let mut total: usize = 0;
    let _ = visit_relations(node, |name: &ObjectName| {
        total = total.saturating_add(weight(name, parts, known));
        ControlFlow::<()>::Continue(())
    });
    total
}

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
