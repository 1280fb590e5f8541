//! What Postgres says, in the words of `withstand`: a file to copy, and to change where your statements mean something else.

use std::{error::Error as _, io};

use tokio_postgres::{Error, error::SqlState};
use withstand::{Classification, Verdict};

/// The verdict about an error of a statement. A call is one statement or one transaction: what the server has refused or
/// rolled back is then as if it had never begun.
pub(crate) fn classify(error: &Error) -> Classification {
    match error.code() {
        Some(code) => classify_code(code),
        // It broke halfway. Whether the statement was carried out, nobody knows.
        None if error.is_closed() || error.source().is_some_and(|cause| cause.is::<io::Error>()) => {
            Verdict::transient().label("pg_connection")
        }
        // A parameter or a column of another type, a row too many: between our code and our schema.
        None => Verdict::ignored().label("pg_usage"),
    }
}

/// The verdict about an error of connecting: no statement was sent, so any may be sent again.
pub(crate) fn classify_connect(error: &Error) -> Classification {
    let said = classify(error);
    match said.verdict() {
        // Too many connections already, or a password that is wrong the next time too.
        Verdict::Throttled { .. } | Verdict::Failure => said,
        _ => Verdict::unreached().label("pg_connect"),
    }
}

/// The verdict about a SQLSTATE: five characters, of which the first two are its class.
pub(crate) fn classify_code(code: &SqlState) -> Classification {
    let code = code.code();
    match (code.get(..2).unwrap_or_default(), code) {
        // Rolled back for want of quiet, and nothing is wrong with the server. For a transaction that may be repeated as a
        // whole, that is what "throttled" does: again after a pause even if not idempotent, and no failure of the server.
        (_, "40001" | "40P01" | "55P03") => Verdict::throttled().label("pg_contention"),
        // Of a rollback for other reasons, this one alone does not say whether it was one: the statement is in doubt.
        (_, "40003") => Verdict::transient().label("pg_in_doubt"),
        // A full disk is as full the next time; for the rest, connections, memory and locks, there are calls too many.
        (_, "53100") => Verdict::failure().label("pg_disk_full"),
        ("53", _) => Verdict::throttled().label("pg_resources"),
        // It starts, or stops, or recovers: it takes no connections now.
        (_, "57P03" | "08001" | "08004") => Verdict::unreached().label("pg_unavailable"),
        // Ended by an administrator or by a crash next door; broken off, by a pooler in between for example.
        ("08", _) | (_, "57P01" | "57P02" | "57P04" | "57P05") => Verdict::transient().label("pg_connection"),
        // A `statement_timeout` has passed: too slow. A cancellation of our own is seen by nobody.
        (_, "57014") => Verdict::transient().label("pg_canceled"),
        // The server itself is broken, or will not have us.
        ("58" | "F0" | "XX", _) => Verdict::failure().label("pg_internal"),
        ("28" | "3D", _) => Verdict::failure().label("pg_login"),
        // It has answered: a row that is there already, a check that does not hold, SQL that is wrong.
        ("23", _) => Verdict::success().label("pg_constraint"),
        _ => Verdict::success().label("pg_answered"),
    }
}
