//! From a query's text to an optimised logical plan that is known to be a bounded read.

use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;

use crate::check;
use crate::error::Error;

/// Plans one query.
///
/// # Errors
/// [`Error::Invalid`] with the place, or [`Error::TooLarge`].
pub(crate) async fn logical(
    sql: &str,
    state: &SessionState,
    limit: Option<usize>,
    nodes: usize,
) -> Result<LogicalPlan, Error> {
    let statement = check::parse(sql, state)?;
    let explain = |e: &datafusion::common::DataFusionError| Error::of(e, sql);
    let mut plan = state
        .statement_to_plan(statement)
        .await
        .map_err(|e| explain(&e))?;
    check::plan(&plan, nodes)?;
    match (&plan, limit) {
        // The planner knows this one only as rows.
        (LogicalPlan::DescribeTable(_), _) => {
            let context = SessionContext::new_with_state(state.clone());
            let frame = context
                .execute_logical_plan(plan)
                .await
                .map_err(|e| explain(&e))?;
            plan = frame.into_unoptimized_plan();
        }
        (LogicalPlan::Explain(_) | LogicalPlan::Analyze(_), _) | (_, None) => {}
        // One more, to know whether any are left out.
        (_, Some(limit)) => {
            plan = LogicalPlanBuilder::from(plan)
                .limit(0, Some(limit.saturating_add(1)))
                .and_then(LogicalPlanBuilder::build)
                .map_err(|e| explain(&e))?;
        }
    }
    state.optimize(&plan).map_err(|e| explain(&e))
}
