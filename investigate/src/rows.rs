//! Answers of SQL as structs.

use archive::sql::Sql;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Runs a query with named parameters (`$value`) and reads each row as a `T`. Parameters are values, never text of the query.
pub(crate) async fn query<T: DeserializeOwned>(
    sql: &Sql,
    text: &str,
    parameters: &[(&str, &str)],
) -> Result<Vec<T>, Error> {
    let lines = sql.query_ndjson(text, parameters).await?;
    lines
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Ok(serde_json::from_slice(line)?))
        .collect()
}
