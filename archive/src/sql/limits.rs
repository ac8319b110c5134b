//! How much one query may take. Beyond it ends with one line that says what was too much.

use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

/// What a query may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sorts, joins and groups beyond it go to disk; what cannot, fails.
    pub memory_bytes: usize,
    /// What lies on disk meanwhile.
    pub spill_bytes: u64,
    /// From the question to the last row.
    pub time: Duration,
    /// Rows of the answer, where whoever takes it holds all of it.
    pub rows: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 2 * 1024 * 1024 * 1024,
            spill_bytes: 16 * 1024 * 1024 * 1024,
            time: Duration::from_secs(15 * 60),
            rows: None,
        }
    }
}

/// Longest text of a query. Nothing that a person or a tool writes comes near.
pub(super) const QUERY_BYTES_MAX: usize = 1024 * 1024;

/// Operators of one query: a chain of them is as deep as it is long, and the stack ends before the memory does.
pub(super) const OPERATORS_MAX: usize = 250;

/// The stack of the thread that plans: about ten times what so many operators take. Only what is used is ever taken.
pub(super) const PLANNING_STACK_BYTES: usize = 64 * 1024 * 1024;

/// Tables and subqueries of one query: joins are carried out as deep as they are nested.
pub(super) const RELATIONS_MAX: usize = 100;

/// What makes a query deep.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) operators: usize,
    pub(super) relations: usize,
}

/// Counts before anything is parsed. What cannot be cut into words is refused by the parser.
pub(super) fn depth(query: &str) -> Depth {
    depth_of(&Tokenizer::new(&GenericDialect, query).tokenize().unwrap_or_default())
}

/// The same, of a query that has been cut into words by those who parse it.
pub(super) fn depth_of(words: &[Token]) -> Depth {
    let mut depth = Depth::default();
    // For each open parenthesis, whether what stands there is a list of tables.
    let mut lists_tables = vec![false];
    for token in words {
        let lists = lists_tables.last().copied().unwrap_or(false);
        match token {
            Token::LParen => lists_tables.push(false),
            Token::RParen => drop(lists_tables.pop()),
            Token::Comma => depth.relations += usize::from(lists),
            Token::Word(word) => {
                let keyword = word.keyword;
                depth.operators += usize::from(CONNECTING.contains(&keyword));
                depth.relations += usize::from(matches!(keyword, Keyword::SELECT | Keyword::JOIN | Keyword::VALUES));
                let begins_or_ends = keyword == Keyword::FROM || CLAUSES.contains(&keyword);
                if let Some(lists) = lists_tables.last_mut().filter(|_| begins_or_ends) {
                    *lists = keyword == Keyword::FROM;
                }
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::Whitespace(_)
            | Token::Period
            | Token::SemiColon
            | Token::EOF => {}
            _ => depth.operators += 1,
        }
    }
    depth
}

/// Words that connect two parts of an expression, or wrap one.
const CONNECTING: [Keyword; 11] = [
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::IS,
    Keyword::LIKE,
    Keyword::BETWEEN,
    Keyword::UNION,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
    Keyword::CASE,
    Keyword::EXISTS,
];

/// Words after which no more tables are listed.
const CLAUSES: [Keyword; 7] =
    [Keyword::SELECT, Keyword::WHERE, Keyword::GROUP, Keyword::HAVING, Keyword::ORDER, Keyword::LIMIT, Keyword::WINDOW];

/// The rows, as long as they keep within the limits. What works for them ends when they are dropped.
pub(super) fn bounded(rows: SendableRecordBatchStream, limits: Limits, asked: Instant) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let until = asked + limits.time;
    let bounded = stream::unfold(Some((rows, 0)), move |state| async move {
        let (mut rows, given) = state?;
        match timeout_at(until, rows.next()).await {
            Err(_) => Some((Err(too_long(limits.time)), None)),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(Some(Ok(batch))) => {
                let given = given + batch.num_rows() as u64;
                match limits.rows.filter(|&most| given > most) {
                    Some(most) => Some((Err(too_many(most)), None)),
                    None => Some((Ok(batch), Some((rows, given)))),
                }
            }
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, Box::pin(bounded)))
}

pub(super) fn too_long(time: Duration) -> DataFusionError {
    let seconds = time.as_secs();
    DataFusionError::ResourcesExhausted(format!(
        "the query was ended after {seconds} s: ask for fewer days or one user, or allow it more time"
    ))
}

fn too_many(rows: u64) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "the answer has more than {rows} rows: add LIMIT, or choose a format that is written as it comes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_tables_and_subqueries_are_counted_and_lists_of_values_are_not() {
        let counted = |query| {
            let Depth { operators, relations } = depth(query);
            (operators, relations)
        };
        assert_eq!(counted("SELECT a, b, c FROM t WHERE a IN (1, 2, 3) ORDER BY a, b"), (0, 1));
        assert_eq!(counted("SELECT 1 FROM a, b, (SELECT 1 FROM c, d) e WHERE x = 1 AND y > 2"), (3, 5));
        assert_eq!(counted("SELECT f(1, 2) FROM t JOIN u USING (x, y) LIMIT 3"), (0, 2));
        assert_eq!(counted("SELECT ')))', \"FROM\", 'a, b' -- , + +"), (0, 1));
        assert_eq!(counted("))) FROM a, b"), (0, 0));
    }
}
