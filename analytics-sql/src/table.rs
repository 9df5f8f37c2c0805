//! `messages`, as one tenant sees it: the lake's rows and the tail's, once each, and
//! no other tenant's.
//!
//! The tenant's filter is not a clause that the query's own clauses stand beside. It
//! is inside the scan, under everything the query computes, and the scan is a leaf
//! that no optimizer rule sees into. Otherwise `CAST(text AS INT)` could be computed on
//! another tenant's row before the filter drops it, and its error would quote that
//! row. For the same reason the scan gives no statistics, and takes from the query only
//! comparisons of a column with a constant, which cannot fail.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, col, lit};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions,
};
use weir_records::columns;

use crate::tail::View;

/// Name of the column that the tenant's filter compares.
const TENANT: &str = "tenant";

/// The table provider of one query.
pub(crate) struct Messages {
    tenant: String,
    view: View,
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("messages")
    }
}

impl Messages {
    /// `messages` in that view, for that tenant.
    pub(crate) const fn new(tenant: String, view: View) -> Self {
        Self { tenant, view }
    }
}

#[async_trait]
impl TableProvider for Messages {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&columns::MESSAGES)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| {
                if harmless(filter) {
                    TableProviderFilterPushDown::Exact
                } else {
                    TableProviderFilterPushDown::Unsupported
                }
            })
            .collect())
    }

    /// A limit is not passed on: it would count rows of other tenants.
    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let wanted: Vec<usize> =
            projection.map_or_else(|| (0..schema.fields().len()).collect(), Clone::clone);

        let mut filters: Vec<Expr> = filters.iter().filter(|f| harmless(f)).cloned().collect();
        filters.insert(0, col(TENANT).eq(lit(self.tenant.as_str())));
        // What the filters read is read too, and left out again after them.
        let mut read = wanted.clone();
        for column in filters.iter().flat_map(Expr::column_refs) {
            let index = schema.index_of(&column.name)?;
            if !read.contains(&index) {
                read.push(index);
            }
        }
        // The lake matches names without a relation.
        let filters: Vec<Expr> = filters
            .into_iter()
            .map(unqualified)
            .collect::<Result<_>>()?;

        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if let Some(lake) = self.view.snapshot.as_ref().and_then(|s| s.scan.as_ref()) {
            let lake = lake.scan(session, Some(&read), &filters, None).await?;
            let partitions = session.config().target_partitions();
            let split = lake.repartitioned(partitions, session.config_options())?;
            inputs.push(split.unwrap_or(lake));
        }
        if !self.view.tail.is_empty() {
            let tail = MemorySourceConfig::try_new_exec(
                &self.view.tail,
                Arc::clone(&schema),
                Some(read.clone()),
            )?;
            inputs.push(tail);
        }
        if inputs.is_empty() {
            let none = Arc::new(schema.project(&wanted)?);
            return Ok(Arc::new(EmptyExec::new(none)));
        }
        let rows = UnionExec::try_new(inputs)?;

        let row_schema = DFSchema::try_from(schema.project(&read)?)?;
        let predicate = filters.into_iter().reduce(Expr::and);
        // There is always the tenant's filter.
        let predicate = predicate.unwrap_or_else(|| lit(false));
        let predicate = session.create_physical_expr(predicate, &row_schema)?;
        let own = FilterExecBuilder::new(predicate, rows)
            .apply_projection(Some((0..wanted.len()).collect()))?
            .build()?;
        Ok(Arc::new(OwnRows::new(Arc::new(own))))
    }
}

/// Whether computing this on a row can neither fail nor take long, whatever the row
/// holds: a column compared with a constant, and those joined by AND, OR and NOT.
fn harmless(filter: &Expr) -> bool {
    let column = |e: &Expr| matches!(e, Expr::Column(_));
    let constant = |e: &Expr| matches!(e, Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And | Operator::Or => harmless(left) && harmless(right),
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq => {
                (column(left) && constant(right)) || (constant(left) && column(right))
            }
            _ => false,
        },
        Expr::Not(inner) => harmless(inner),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => column(inner),
        Expr::Between(between) => {
            column(&between.expr) && constant(&between.low) && constant(&between.high)
        }
        Expr::InList(list) => column(&list.expr) && list.list.iter().all(constant),
        _ => false,
    }
}

fn unqualified(filter: Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    filter
        .transform(|e| {
            Ok(match e {
                Expr::Column(column) if column.relation.is_some() => Transformed::yes(
                    Expr::Column(datafusion::common::Column::new_unqualified(column.name)),
                ),
                other => Transformed::no(other),
            })
        })
        .map(|t| t.data)
}

/// One tenant's rows: a leaf for the optimizer, see the top of this file.
#[derive(Debug)]
struct OwnRows {
    inner: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl OwnRows {
    fn new(inner: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(inner.schema()),
            Partitioning::UnknownPartitioning(
                inner.properties().output_partitioning().partition_count(),
            ),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            inner,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for OwnRows {
    /// Says nothing of files or of other rows: EXPLAIN shows it to the tenant.
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        write!(f, "Messages: columns=[{}]", names.join(", "))
    }
}

impl ExecutionPlan for OwnRows {
    fn name(&self) -> &'static str {
        "Messages"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.inner.execute(partition, context)
    }
}
