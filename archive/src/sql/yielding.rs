//! Joins that let others have their turn.
//!
//! The engine's operators yield where data is read, but a join makes any number of rows of what it has read: counting
//! those of a cross join is one step of minutes, within which no time limit, no cancelling and no end of the process is
//! seen. So what joins and other multiplying operators put out passes a point at which a step ends now and then.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Puts such a point behind every operator that may put out more than it takes in.
#[derive(Debug)]
pub(super) struct Yielding;

impl PhysicalOptimizerRule for Yielding {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let yielding = plan.transform_up(|plan| {
            let name = plan.name();
            let multiplies = name.ends_with("JoinExec") || name == "UnnestExec";
            Ok(match multiplies {
                true => Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        });
        Ok(yielding?.data)
    }

    fn name(&self) -> &str {
        "yielding"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
