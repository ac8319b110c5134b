//! What a statement is, by its first words: a question for the engine, a word of housekeeping, or something that is
//! refused. Pure.
//!
//! It is a list of what is allowed. Everything that is not in it is refused before anything is parsed; questions are judged
//! once more by what they parse to, and a third time by what is planned.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::failure::Failure;

/// The words of one statement, without its semicolon.
pub(super) type Words = Vec<Token>;

/// One statement of a client.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    /// Nothing but white space and comments.
    Empty,
    /// Something to be planned: it begins like a query.
    Question(Words),
    Begin,
    Commit,
    Rollback,
    /// Savepoints, and what is set for a transaction: nothing is done, and nothing is promised by it.
    Nothing(&'static str),
    Set {
        name: String,
        value: String,
    },
    Reset(Option<String>),
    Show(String),
    /// Forgets prepared statements: one or all.
    Deallocate(Option<String>),
    DiscardAll,
}

/// The statements of a text.
pub(super) fn cut(text: &str) -> Result<Vec<Words>, Failure> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize();
    let tokens = tokens.map_err(|error| Failure::new("42601", format!("the query cannot be read: {error}")))?;
    let statements = tokens.split(|token| *token == Token::SemiColon).map(<[Token]>::to_vec);
    Ok(statements.filter(|words| words.iter().any(says_something)).collect())
}

fn says_something(token: &Token) -> bool {
    !matches!(token, Token::Whitespace(_) | Token::EOF)
}

/// What these words are.
pub(super) fn read(words: Words) -> Result<Statement, Failure> {
    let said: Vec<String> = words.iter().filter(|token| says_something(token)).map(plain).collect();
    // With their quotes: a text is not the word that it holds.
    let upper = words.iter().filter(|token| says_something(token)).map(|token| token.to_string().to_ascii_uppercase());
    let upper: Vec<String> = upper.collect();
    let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
    let statement = match upper.as_slice() {
        [] => Statement::Empty,
        ["SHOW", "TABLES" | "COLUMNS" | "FUNCTIONS", ..] => Statement::Question(words),
        ["SELECT" | "WITH" | "VALUES" | "EXPLAIN" | "DESCRIBE" | "DESC" | "(", ..] => Statement::Question(words),
        ["BEGIN" | "START", modes @ ..] => isolated(modes).map(|()| Statement::Begin)?,
        ["COMMIT" | "END", ..] => Statement::Commit,
        ["ROLLBACK", "TO", ..] | ["ROLLBACK", "WORK" | "TRANSACTION", "TO", ..] => Statement::Nothing("ROLLBACK"),
        ["ROLLBACK" | "ABORT", ..] => Statement::Rollback,
        ["SAVEPOINT", ..] => Statement::Nothing("SAVEPOINT"),
        ["RELEASE", ..] => Statement::Nothing("RELEASE"),
        ["SET", "TRANSACTION", modes @ ..] | ["SET", "SESSION", "CHARACTERISTICS", modes @ ..] => {
            isolated(modes).map(|()| Statement::Nothing("SET"))?
        }
        ["SET", ..] => set(&said[1..])?,
        ["RESET", "ALL"] => Statement::Reset(None),
        ["RESET", ..] => Statement::Reset(Some(name(&said[1..]))),
        ["SHOW", "TRANSACTION", "ISOLATION", "LEVEL"] => Statement::Show("transaction_isolation".to_owned()),
        ["SHOW", "TIME", "ZONE"] => Statement::Show("timezone".to_owned()),
        ["SHOW", ..] => Statement::Show(name(&said[1..])),
        ["DEALLOCATE", "ALL"] | ["DEALLOCATE", "PREPARE", "ALL"] => Statement::Deallocate(None),
        ["DEALLOCATE", "PREPARE", _] => Statement::Deallocate(said.get(2).cloned()),
        ["DEALLOCATE", _] => Statement::Deallocate(said.get(1).cloned()),
        ["DISCARD", "ALL"] => Statement::DiscardAll,
        ["DISCARD", ..] => Statement::Nothing("DISCARD"),
        ["CLOSE", "ALL"] => Statement::Nothing("CLOSE CURSOR ALL"),
        ["UNLISTEN", ..] => Statement::Nothing("UNLISTEN"),
        [first, ..] => return Err(refused(first)),
    };
    Ok(statement)
}

/// Each statement has a snapshot of its own, also within a transaction. More is not promised.
fn isolated(modes: &[&str]) -> Result<(), Failure> {
    match modes.iter().any(|word| matches!(*word, "REPEATABLE" | "SERIALIZABLE")) {
        true => {
            Err(Failure::not_offered("a transaction of several statements that see the same: each sees the newest"))
        }
        false => Ok(()),
    }
}

/// `SET [SESSION | LOCAL] name (= | TO) value`, and the two that are written otherwise.
fn set(said: &[String]) -> Result<Statement, Failure> {
    let is = |word: &String, name: &str| word.eq_ignore_ascii_case(name);
    let said = match said {
        [scope, rest @ ..] if is(scope, "SESSION") || is(scope, "LOCAL") => rest,
        all => all,
    };
    match said {
        [time, zone, value @ ..] if is(time, "TIME") && is(zone, "ZONE") => {
            Ok(Statement::Set { name: "timezone".to_owned(), value: value.concat() })
        }
        [names, value @ ..] if is(names, "NAMES") => {
            Ok(Statement::Set { name: "client_encoding".to_owned(), value: value.concat() })
        }
        said => {
            let to = said.iter().position(|word| word == "=" || is(word, "TO"));
            let to = to.filter(|to| *to > 0).ok_or_else(|| Failure::new("42601", "SET takes a name and a value"))?;
            Ok(Statement::Set { name: name(&said[..to]), value: said[to + 1..].concat() })
        }
    }
}

fn name(said: &[String]) -> String {
    said.concat().to_ascii_lowercase()
}

/// A word as it was meant: without its quotes.
fn plain(token: &Token) -> String {
    match token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
        other => other.to_string(),
    }
}

fn refused(first: &str) -> Failure {
    const WRITING: [&str; 24] = [
        "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "CREATE", "ALTER", "DROP", "COPY", "GRANT", "REVOKE",
        "COMMENT", "VACUUM", "ANALYZE", "REINDEX", "CLUSTER", "REFRESH", "IMPORT", "SECURITY", "REASSIGN", "LOCK",
        "DO", "CALL", "LOAD",
    ];
    match WRITING.contains(&first) {
        true => Failure::read_only(first),
        // What it was is not repeated: it may be anything.
        false => Failure::not_offered("a statement of this kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Statement, &'static str> {
        let mut statements = cut(text).map_err(|failure| failure.code)?;
        assert!(statements.len() <= 1, "{text}");
        read(statements.pop().unwrap_or_default()).map_err(|failure| failure.code)
    }

    #[test]
    fn statements_are_told_apart_by_their_first_words() {
        let set = |name: &str, value: &str| Ok(Statement::Set { name: name.into(), value: value.into() });
        assert_eq!(one(" -- nothing\n;"), Ok(Statement::Empty));
        assert_eq!(one("begin read only;"), Ok(Statement::Begin));
        assert_eq!(one("BEGIN ISOLATION LEVEL REPEATABLE READ"), Err("0A000"));
        assert_eq!(one("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"), Ok(Statement::Nothing("SET")));
        assert_eq!(one("SET extra_float_digits = 3"), set("extra_float_digits", "3"));
        assert_eq!(one("set session application_name to 'it''s me'"), set("application_name", "it's me"));
        assert_eq!(one("SET search_path = public, pg_catalog"), set("search_path", "public,pg_catalog"));
        assert_eq!(one("SET datafusion.execution.batch_size = 1"), set("datafusion.execution.batch_size", "1"));
        assert_eq!(one("SET TIME ZONE 'Europe/Berlin'"), set("timezone", "Europe/Berlin"));
        assert_eq!(one("SET NAMES 'utf8'"), set("client_encoding", "utf8"));
        assert_eq!(one("SHOW TimeZone"), Ok(Statement::Show("timezone".into())));
        assert_eq!(one("DEALLOCATE \"a b\""), Ok(Statement::Deallocate(Some("a b".into()))));
        assert_eq!(one("ROLLBACK TO SAVEPOINT s"), Ok(Statement::Nothing("ROLLBACK")));
        for text in ["/* SELECT */ DROP TABLE events", "copy events to stdout", "cReAtE TABLE x()", "call f()"] {
            assert_eq!(one(text), Err("25006"), "{text}");
        }
        for text in
            ["LISTEN x", "PREPARE x AS SELECT 1", "EXECUTE x", "DECLARE c CURSOR FOR SELECT 1", "xyz", "1", "'SELECT'"]
        {
            assert_eq!(one(text), Err("0A000"), "{text}");
        }
        assert!(matches!(one("(SELECT 1)"), Ok(Statement::Question(_))));
        assert_eq!(cut("SELECT ';'; SELECT $$;$$;;").map(|statements| statements.len()), Ok(2));
        assert!(cut("SELECT 'open").is_err());
    }
}
