//! Which statements may run: one at a time, only reads, of a bounded size.
//!
//! Checked twice: the statement as parsed, for a clear refusal, and the plan made of
//! it, node by node against a list of what is allowed, so that nothing new comes in by
//! itself.

use std::collections::{HashMap, VecDeque};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Like;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::GenericDialect;

use crate::error::Error;
use crate::grow;
use crate::shape::{self, Bounds};

/// What the tenant may read of `information_schema`; the settings are the operator's.
const INFORMATION: [&str; 6] = [
    "tables",
    "views",
    "columns",
    "schemata",
    "routines",
    "parameters",
];

/// What a statement's shape may be. A plan's cost grows faster than these do, and
/// planning can't be stopped; threads of queries have the stack for this depth.
const BOUNDS: Bounds = Bounds {
    depth: 500,
    chain: 64,
    tables: 128,
};

/// Calls in one step of a plan, of functions that make more than they are given and of
/// regular expressions. What each makes is bounded, but they are all there at once.
const CALLS: usize = 64;
/// `||` in one step of a plan.
const JOINS: usize = 512;
/// Length of what `string_agg` puts between two texts; it does so for a whole batch of
/// rows before its memory is counted.
const BETWEEN: usize = 1024;

/// Parses one reading statement.
///
/// # Errors
/// [`Error::Invalid`] says what is wrong and where.
pub(crate) fn parse(sql: &str, state: &SessionState) -> Result<Statement, Error> {
    let limit = state.config_options().sql_parser.recursion_limit.get();
    let statements: VecDeque<Statement> = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(limit)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| Error::of(&e, sql))?;
    let mut statements = statements.into_iter();
    let statement = statements
        .next()
        .ok_or_else(|| Error::invalid("there is no statement in the query"))?;
    if statements.next().is_some() {
        return Err(Error::invalid(
            "one statement at a time: there is a second one after the `;`",
        ));
    }
    if !reads(&statement) {
        return Err(Error::invalid(
            "only reads are possible here: SELECT, WITH, VALUES, EXPLAIN, DESCRIBE, SHOW TABLES, SHOW COLUMNS, \
             SHOW FUNCTIONS",
        ));
    }
    shape::check(&statement, &BOUNDS)?;
    Ok(statement)
}

fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(sql) => sql_reads(sql),
        Statement::Explain(explain) => reads(&explain.statement),
        _ => false,
    }
}

fn sql_reads(statement: &Sql) -> bool {
    match statement {
        Sql::Query(_)
        | Sql::ExplainTable { .. }
        | Sql::ShowTables { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowFunctions { .. } => true,
        Sql::Explain { statement, .. } => sql_reads(statement),
        _ => false,
    }
}

/// Checks a plan before anything walks it as a tree: a part that is named once and
/// used twice, thirty times over, would be a billion nodes.
///
/// # Errors
/// [`Error::TooLarge`] above `nodes`, [`Error::Invalid`] for what is not a read.
pub(crate) fn plan(plan: &LogicalPlan, nodes: usize) -> Result<(), Error> {
    let weight = weigh(plan, &mut HashMap::new())?;
    if weight > nodes {
        return Err(Error::TooLarge(format!(
            "the query's plan has more than {nodes} nodes; parts of WITH count each time they are used"
        )));
    }
    Ok(())
}

/// Nodes of the plan as a tree, counted in the time of the graph that it still is.
fn weigh(
    plan: &LogicalPlan,
    known: &mut HashMap<*const LogicalPlan, usize>,
) -> Result<usize, Error> {
    if let Some(&weight) = known.get(&std::ptr::from_ref(plan)) {
        return Ok(weight);
    }
    allowed(plan)?;
    sized(plan)?;
    calls(plan)?;
    let mut weight: usize = 1;
    for input in plan.inputs() {
        weight = weight.saturating_add(weigh(input, known)?);
    }
    let mut refused = None;
    // The closure never fails, so the walk does not.
    let _ = plan.apply_subqueries(|subquery| {
        // What comes here is made for this call; what is known by address is inside it.
        let subquery = match subquery {
            LogicalPlan::Subquery(inner) => &*inner.subquery,
            other => other,
        };
        Ok(match weigh(subquery, known) {
            Ok(more) => {
                weight = weight.saturating_add(more);
                TreeNodeRecursion::Jump
            }
            Err(error) => {
                refused = Some(error);
                TreeNodeRecursion::Stop
            }
        })
    });
    if let Some(error) = refused {
        return Err(error);
    }
    known.insert(plan, weight);
    Ok(weight)
}

fn allowed(plan: &LogicalPlan) -> Result<(), Error> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.schema() == Some("information_schema") => {
            let table = scan.table_name.table();
            if INFORMATION.contains(&table) {
                return Ok(());
            }
            Err(Error::invalid(format!(
                "`information_schema.{table}` can't be read here"
            )))
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_) => Ok(()),
        LogicalPlan::Statement(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_) => Err(Error::invalid("only reads are possible here")),
    }
}

/// Refuses types whose values have a length that the type says: one NULL of them takes
/// that much memory, and is made while the plan is optimised.
fn sized(plan: &LogicalPlan) -> Result<(), Error> {
    let mut found = plan.schema().fields().iter().any(|f| fixed(f.data_type()));
    // The closure never fails, so the walk does not.
    let _ = plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            found |= match expr {
                Expr::Cast(cast) => fixed(cast.field.data_type()),
                Expr::TryCast(cast) => fixed(cast.field.data_type()),
                Expr::Literal(value, _) => fixed(&value.data_type()),
                _ => false,
            };
            Ok(if found {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })
    });
    if found {
        return Err(Error::invalid(shape::FIXED));
    }
    Ok(())
}

fn fixed(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeList(..) | DataType::FixedSizeBinary(_) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::Map(field, _) => fixed(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| fixed(f.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, f)| fixed(f.data_type())),
        DataType::Dictionary(key, value) => fixed(key) || fixed(value),
        DataType::RunEndEncoded(ends, values) => {
            fixed(ends.data_type()) || fixed(values.data_type())
        }
        _ => false,
    }
}

/// Bounds what the expressions of one step make together.
fn calls(plan: &LogicalPlan) -> Result<(), Error> {
    let (mut calls, mut joins) = (0_usize, 0_usize);
    let mut refused: Option<Error> = None;
    // The closure never fails, so the walk does not.
    let _ = plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            if let Some(pattern) = pattern(expr) {
                calls += 1;
                if !constant(pattern) {
                    refused = Some(Error::invalid(
                        "a regular expression has to be a constant: each one is put together anew",
                    ));
                }
            }
            match expr {
                Expr::ScalarFunction(call) if grow::grows(call.func.name()) => calls += 1,
                Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => joins += 1,
                Expr::AggregateFunction(call) if call.func.name() == "string_agg" => {
                    refused = refused.take().or_else(|| between(&call.params.args));
                }
                Expr::WindowFunction(call) if call.fun.name() == "string_agg" => {
                    refused = refused.take().or_else(|| between(&call.params.args));
                }
                _ => {}
            }
            if refused.is_none() && (calls > CALLS || joins > JOINS) {
                refused = Some(Error::TooLarge(format!(
                    "one SELECT has more than {CALLS} calls of functions that lengthen text and regular \
                     expressions, or more than {JOINS} times `||`"
                )));
            }
            Ok(if refused.is_some() {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })
    });
    refused.map_or(Ok(()), Err)
}

/// The regular expression that this would compile, for each of its values.
fn pattern(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) => matches!(
            op,
            Operator::RegexMatch
                | Operator::RegexIMatch
                | Operator::RegexNotMatch
                | Operator::RegexNotIMatch
        )
        .then_some(&**right),
        Expr::SimilarTo(Like { pattern, .. }) => Some(pattern),
        Expr::ScalarFunction(call) if call.func.name().starts_with("regexp_") => call.args.get(1),
        _ => None,
    }
}

/// Whether it has one value for all rows.
fn constant(expr: &Expr) -> bool {
    let varies = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::Column(_) | Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_)
        ))
    };
    !expr.exists(varies).unwrap_or(true) && !expr.is_volatile()
}

/// Why what `string_agg` puts between is not right.
fn between(args: &[Expr]) -> Option<Error> {
    let short = match args.get(1) {
        None => true,
        Some(Expr::Literal(value, _)) => value
            .try_as_str()
            .is_some_and(|text| text.is_none_or(|text| text.len() <= BETWEEN)),
        Some(_) => false,
    };
    (!short).then(|| {
        Error::invalid(format!(
            "what `string_agg` puts between has to be a text of {BETWEEN} bytes at most"
        ))
    })
}
