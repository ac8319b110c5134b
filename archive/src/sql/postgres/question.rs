//! A client's question: parsed, judged, rewritten, and planned over the tables as of its start.
//!
//! What is planned here is bounded and carried out by the same code as `harrier sql`, under the same limits.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::FutureExt;

use super::super::limits::{Depth, OPERATORS_MAX, RELATIONS_MAX, depth_of};
use super::super::{QueryError, Rows, Sql};
use super::catalog::{self, DATABASE};
use super::failure::Failure;
use super::statement::Words;
use super::{Session, naming, types};

/// Most parameters of a question: far beyond any, and what is planned holds each.
const PARAMETERS_MAX: usize = 1_000;

/// What a question will be answered with, and what it needs for that.
#[derive(Clone, Debug)]
pub(super) struct Described {
    /// The type of each parameter, in their order.
    pub parameters: Vec<DataType>,
    pub schema: SchemaRef,
}

/// Finds the types of a question's parameters and columns, and asks nothing.
pub(super) async fn describe(
    sql: &Sql,
    session: &Arc<Session>,
    words: Words,
    types: Vec<Option<DataType>>,
) -> Result<Described, Failure> {
    let (own, session) = (sql.clone(), session.clone());
    let describing = async move {
        let statement = parse(words)?;
        let mut types = types;
        catalog::rewrite::lists(&statement, &mut types, PARAMETERS_MAX);
        let plan = plan(&own, &session, statement.clone(), &types).await?;
        let found = plan.get_parameter_types().map_err(QueryError::from)?;
        let mut numbers: Vec<usize> = Vec::new();
        for name in found.keys() {
            let number = name.strip_prefix('$').and_then(|number| number.parse().ok());
            numbers.push(number.filter(|number| (1..=PARAMETERS_MAX).contains(number)).ok_or_else(named)?);
        }
        let count = numbers.into_iter().max().unwrap_or_default().max(types.len());
        types.resize(count, None);
        let mut is_open = false;
        for (number, slot) in (1..).zip(&mut types) {
            if slot.is_none() {
                let data_type = found.get(&format!("${number}")).cloned().flatten();
                let data_type = data_type.filter(|found| *found != DataType::Null);
                is_open |= data_type.is_none();
                // What nothing says anything of is text, as in PostgreSQL.
                *slot = Some(data_type.map_or(DataType::Utf8, sent));
            }
        }
        let plan = if is_open { self::plan(&own, &session, statement, &types).await? } else { plan };
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(Described { parameters: types.into_iter().flatten().collect(), schema })
    };
    sql.on_a_deep_stack(describing.boxed()).await.map_err(Failure::from)?
}

/// The type that a client can send for one of the engine.
fn sent(data_type: DataType) -> DataType {
    types::parameter(types::parameter_oid(&data_type)).ok().flatten().unwrap_or(DataType::Utf8)
}

fn named() -> Failure {
    Failure::new("42P02", format!("parameters are written $1 to ${PARAMETERS_MAX}"))
}

/// Asks a question: its rows come as they are found, within the limits of `sql`.
pub(super) async fn ask(
    sql: &Sql,
    session: &Arc<Session>,
    words: Words,
    values: Vec<ScalarValue>,
) -> Result<Rows, Failure> {
    let (own, session) = (sql.clone(), session.clone());
    let types = values.iter().map(|value| Some(value.data_type())).collect::<Vec<_>>();
    // Refusals of ours pass through the engine's own way of failing.
    let refused = Arc::new(std::sync::OnceLock::new());
    let refusal = refused.clone();
    let planning = async move {
        let failed = |failure: Failure| {
            let _ = refusal.set(failure);
            QueryError::from(datafusion::error::DataFusionError::Plan(String::new()))
        };
        let statement = parse(words).map_err(&failed)?;
        let (plan, context) = planned(&own, &session, statement, &types).await.map_err(failed)?;
        let plan = if values.is_empty() { plan } else { plan.with_param_values(values)? };
        Ok(DataFrame::new(context.state(), plan))
    };
    sql.run(planning.boxed()).await.map_err(|error| refused.get().cloned().unwrap_or_else(|| error.into()))
}

/// The statement, if it is one that only asks.
fn parse(words: Words) -> Result<Statement, Failure> {
    let Depth { operators, relations } = depth_of(&words);
    if operators > OPERATORS_MAX || relations > RELATIONS_MAX {
        return Err(QueryError::TooDeep { operators, relations }.into());
    }
    let unreadable = |error| Failure::new("42601", format!("{error}"));
    let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens(words);
    let statement = parser.parse_statement().map_err(unreadable)?;
    parser.expect_token(&datafusion::sql::sqlparser::tokenizer::Token::EOF).map_err(unreadable)?;
    let asks = |statement: &Statement| {
        matches!(
            statement,
            Statement::Query(_)
                | Statement::ShowTables { .. }
                | Statement::ShowColumns { .. }
                | Statement::ShowFunctions { .. }
                | Statement::ExplainTable { .. }
        )
    };
    match &statement {
        Statement::Explain { statement: inner, .. } if asks(inner) => Ok(statement),
        asked if asks(asked) => Ok(statement),
        _ => Err(Failure::read_only("a statement that does more than ask")),
    }
}

async fn plan(
    sql: &Sql,
    session: &Arc<Session>,
    statement: Statement,
    types: &[Option<DataType>],
) -> Result<LogicalPlan, Failure> {
    planned(sql, session, statement, types).await.map(|(plan, _)| plan)
}

async fn planned(
    sql: &Sql,
    session: &Arc<Session>,
    mut statement: Statement,
    types: &[Option<DataType>],
) -> Result<(LogicalPlan, SessionContext), Failure> {
    naming::name(&mut statement);
    catalog::rewrite::rewrite(&mut statement, types);
    // So that `timestamptz` is what it says: without a zone the engine takes it for a time of no zone.
    let mut config = SessionConfig::new();
    config.options_mut().execution.time_zone = Some("UTC".to_owned());
    let (context, _) = sql.context_of(config, DATABASE)?;
    catalog::register(&context, session).map_err(QueryError::from)?;
    let statement = Parsed::Statement(Box::new(statement));
    let plan = context.state().statement_to_plan(statement).await.map_err(QueryError::from)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(QueryError::from)?;
    Ok((plan, context))
}
