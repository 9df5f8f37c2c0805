//! What stops a query for certain.
//!
//! A stream that never has to wait for its input never lets its thread go, and then
//! neither a time limit nor an abort reaches it. So, besides DataFusion's own points of
//! cooperation, every node of a plan looks at the clock for each batch it gives, lets
//! other work go on, and refuses a batch that is larger than the query's whole memory;
//! and every join condition, which may turn down rows without end and give none, looks
//! at the clock each time it is computed.

use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    ColumnarValue, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties, RecordBatchStream, ReplaceChildrenOptions,
};
use futures::Stream;
use tokio_util::sync::CancellationToken;

/// One query's end: its deadline, or that nobody wants the answer any more.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    deadline: Instant,
    left: CancellationToken,
}

impl Stop {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self {
            deadline,
            left: CancellationToken::new(),
        }
    }

    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Nobody wants the answer any more.
    pub(crate) fn leave(&self) {
        self.left.cancel();
    }

    pub(crate) fn overdue(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Waits for the end.
    pub(crate) async fn reached(&self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.deadline.into()) => {}
            () = self.left.cancelled() => {}
        }
    }

    fn check(&self) -> Result<()> {
        if self.overdue() || self.left.is_cancelled() {
            return Err(DataFusionError::Execution(
                "the query was stopped".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Guards the join conditions of an optimised plan.
pub(crate) fn conditions(plan: LogicalPlan, stop: &Stop) -> Result<LogicalPlan> {
    if matches!(plan, LogicalPlan::Explain(_)) {
        return Ok(plan);
    }
    let check = ScalarUDF::new_from_impl(Check {
        stop: stop.clone(),
        signature: Signature::exact(vec![DataType::Boolean], Volatility::Immutable),
    });
    plan.transform_up_with_subqueries(|node| {
        Ok(match node {
            LogicalPlan::Join(mut join) => {
                join.filter = join.filter.map(|filter| check.call(vec![filter]));
                Transformed::yes(LogicalPlan::Join(join))
            }
            other => Transformed::no(other),
        })
    })
    .map(|t| t.data)
}

/// Guards every node of a plan. A batch may take `bytes` at most.
pub(crate) fn nodes(
    plan: Arc<dyn ExecutionPlan>,
    stop: &Stop,
    bytes: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(Transformed::yes(Arc::new(Guarded {
            input: node,
            stop: stop.clone(),
            bytes,
        }) as Arc<dyn ExecutionPlan>))
    })
    .map(|t| t.data)
}

/// The identity on a condition, while the query may run.
#[derive(Debug)]
struct Check {
    stop: Stop,
    signature: Signature,
}

impl PartialEq for Check {
    fn eq(&self, other: &Self) -> bool {
        self.stop.deadline == other.stop.deadline
    }
}

impl Eq for Check {}

impl Hash for Check {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stop.deadline.hash(state);
    }
}

impl ScalarUDFImpl for Check {
    fn name(&self) -> &'static str {
        "while_running"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.stop.check()?;
        args.args
            .pop()
            .ok_or_else(|| DataFusionError::Internal("a condition without its value".to_owned()))
    }
}

#[derive(Debug)]
struct Guarded {
    input: Arc<dyn ExecutionPlan>,
    stop: Stop,
    bytes: usize,
}

impl DisplayAs for Guarded {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.input.fmt_as(kind, f)
    }
}

impl ExecutionPlan for Guarded {
    fn name(&self) -> &str {
        self.input.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children
            .pop()
            .ok_or_else(|| DataFusionError::Internal("a guard without its node".to_owned()))?;
        Ok(Arc::new(Self {
            input,
            stop: self.stop.clone(),
            bytes: self.bytes,
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let inner = self.input.execute(partition, context)?;
        Ok(Box::pin(Watched {
            inner: make_cooperative(inner),
            stop: self.stop.clone(),
            bytes: self.bytes,
        }))
    }
}

struct Watched {
    inner: SendableRecordBatchStream,
    stop: Stop,
    bytes: usize,
}

impl Stream for Watched {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stop.check()?;
        let batch = std::task::ready!(self.inner.as_mut().poll_next(cx));
        if let Some(Ok(batch)) = &batch
            && batch.get_array_memory_size() > self.bytes
        {
            let error = DataFusionError::ResourcesExhausted(
                "a batch is larger than the query's memory".to_owned(),
            );
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(batch)
    }
}

impl RecordBatchStream for Watched {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}
