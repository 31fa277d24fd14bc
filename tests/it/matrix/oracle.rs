//! What must come of a fault. The rules are those of the exit codes in README.md, "1: some rollups or log objects
//! failed, the others are done" and "3: access denied, or no such bucket: running again cannot help", and of the commit
//! protocol; none of them is read off the program.

use super::scope::{Body, Kind, Scope, Times, missing};

/// How the pass with the fault must end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// With 0, and nothing to tell.
    Done,
    /// With 0; the source stays for the next pass, and the report says why.
    Left(&'static str),
    /// Early, with this code and an error that says all of this.
    Ended(u8, Vec<&'static str>),
    /// With 1; this one rollup failed, and the report says all of this of it. The others are done.
    Failed(Vec<&'static str>),
    /// With 1; no rollup failed, but the report names a source for this reason.
    Named(&'static str),
}

use Expected::{Done, Ended, Failed, Left, Named};

/// What the fault looks like from within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// As if nothing had happened.
    Success,
    /// Nothing, or nothing that can be understood: it may have been applied. Asking again helps.
    NoAnswer {
        applied: bool,
    },
    /// Bytes that are not those of the object. Asking again helps.
    Damage,
    /// A whole document that makes no sense.
    Nonsense,
    Denied,
    Missing,
    Precondition,
    Conflict,
    Digest,
}

const ACCESS: &str = "AccessDenied";
const UNREADABLE: &str = "unreadable";
const UNDELETED: &str = "rolled up but not deleted";
const CONTENDED: &str = "changed by somebody else at every attempt";

/// Why there is no such cell.
pub(crate) fn impossible(scope: Scope, kind: Kind) -> Option<&'static str> {
    match (scope.body(), kind) {
        (Body::Empty, kind) if kind.is_of_bodies() => Some("the answer has no body"),
        (Body::Byte, Kind::WrongChecksum) => Some("S3 sends no checksum with a range"),
        _ => None,
    }
}

fn told(scope: Scope, kind: Kind) -> Told {
    match kind {
        Kind::SlowDown | Kind::InternalError | Kind::ResetBefore | Kind::HangBefore | Kind::OkWithError => {
            Told::NoAnswer { applied: false }
        }
        Kind::LostAnswer | Kind::ErrorAfter | Kind::HangAfter | Kind::OkWithErrorAfter => {
            Told::NoAnswer { applied: true }
        }
        Kind::Denied => Told::Denied,
        Kind::NotFound => Told::Missing,
        Kind::PreconditionFailed => Told::Precondition,
        Kind::Conflict => Told::Conflict,
        Kind::BadDigest => Told::Digest,
        Kind::Truncated | Kind::Short | Kind::Long | Kind::WrongChecksum | Kind::SlowLoris => spoilt(scope, kind),
    }
}

/// What comes of an answer whose body is not the right one.
fn spoilt(scope: Scope, kind: Kind) -> Told {
    match (scope.body(), kind) {
        // One byte is soon there, however slowly it comes.
        (Body::Byte, Kind::SlowLoris) | (Body::Empty, _) => Told::Success,
        // It is refused, and the status says so without the document.
        (_, Kind::Short | Kind::Long | Kind::WrongChecksum) if scope == Scope::CompleteProbe => Told::Success,
        (Body::Document, _) | (_, Kind::SlowLoris) => Told::NoAnswer { applied: true },
        // Its length is told by nobody but itself; half of one, or one and a half, is no manifest.
        (Body::Object, Kind::Short | Kind::Long) if scope == Scope::GetManifest => Told::Nonsense,
        (Body::Object | Body::Byte, _) => Told::Damage,
    }
}

pub(crate) fn expected(scope: Scope, kind: Kind, times: Times) -> Expected {
    match told(scope, kind) {
        Told::Success => Done,
        Told::NoAnswer { .. } | Told::Damage if times != Times::Forever => Done,
        Told::NoAnswer { applied } => unanswered(scope, kind, applied),
        Told::Damage if scope == Scope::GetSource => Named(UNREADABLE),
        Told::Damage => Failed(vec![operation(scope)]),
        Told::Nonsense => Failed(vec!["cannot be used"]),
        Told::Denied => denied(scope, times),
        Told::Missing => not_found(scope, times),
        Told::Precondition | Told::Conflict => changed(scope, kind, times),
        Told::Digest => digest(scope),
    }
}

/// The name of the request's operation.
fn operation(scope: Scope) -> &'static str {
    super::name(scope.operation())
}

/// A request without which the pass cannot go on ends it, one of a rollup fails that rollup alone.
fn alone(scope: Scope, code: u8, says: Vec<&'static str>) -> Expected {
    let says = [says, vec![operation(scope), scope.bucket()]].concat();
    match scope {
        Scope::ListSources | Scope::ListManifests => Ended(code, says),
        _ if scope.is_of_the_probe() => Ended(code, says),
        _ if code == 3 => Ended(code, says),
        _ => Failed(says),
    }
}

/// What only tidies up or is only a hint: that it fails does no harm and concerns nobody.
fn is_optional(scope: Scope) -> bool {
    matches!(scope, Scope::HeadKept | Scope::ListKept | Scope::ListUploads | Scope::AbortRollup | Scope::DeleteProbe)
}

/// Server errors that outlast the retries.
fn unanswered(scope: Scope, kind: Kind, applied: bool) -> Expected {
    let code = match kind {
        // HEAD's answer has no body that would name a code.
        _ if operation(scope) == "HeadObject" => vec![],
        Kind::SlowDown => vec!["SlowDown"],
        Kind::InternalError | Kind::ErrorAfter => vec!["InternalError"],
        _ => vec![],
    };
    match scope {
        _ if is_optional(scope) => Done,
        // HEAD has the last word on a commit.
        Scope::PutRollup | Scope::CompleteRollup if applied => Done,
        Scope::HeadSource | Scope::DeleteSources => Named(UNDELETED),
        _ => alone(scope, 1, code),
    }
}

/// A denied LIST, write or delete ends the pass. A denied read is one source's or one rollup's; of a rollup and of a
/// manifest it may hide a 404, so it is asked once more.
fn denied(scope: Scope, times: Times) -> Expected {
    let action = match scope {
        Scope::ListSources | Scope::ListManifests | Scope::ListRollup | Scope::ListKept => "s3:ListBucket",
        Scope::GetTags => "s3:GetObjectTagging",
        Scope::DeleteSources | Scope::DeleteManifest | Scope::DeleteProbe => "s3:DeleteObject",
        Scope::AbortProbe | Scope::AbortRollup => "s3:AbortMultipartUpload",
        _ if matches!(operation(scope), "GetObject" | "HeadObject") => "s3:GetObject",
        _ => "s3:PutObject",
    };
    let says = if operation(scope) == "HeadObject" { vec![action] } else { vec![ACCESS, action] };
    match scope {
        Scope::DeleteProbe => alone(scope, 3, says),
        _ if is_optional(scope) => Done,
        Scope::GetSource => Named(UNREADABLE),
        Scope::HeadSource => Named(UNDELETED),
        Scope::GetManifest | Scope::GetRollup | Scope::GetLastByte | Scope::HeadRollup | Scope::HeadPending
            if times == Times::Once =>
        {
            Done
        }
        Scope::GetManifest
        | Scope::GetRollup
        | Scope::GetLastByte
        | Scope::HeadRollup
        | Scope::HeadPending
        | Scope::HeadProbe
        | Scope::GetTags => alone(scope, 1, says),
        _ => alone(scope, 3, says),
    }
}

/// No such bucket: running again cannot help. No such upload: planned anew where it is the commit's. No such key: a
/// source that is gone; of R and of a manifest it is believed where the listings do not say otherwise, and where a wrong
/// belief would be found out by the commit's condition.
fn not_found(scope: Scope, times: Times) -> Expected {
    match scope {
        _ if missing(scope) == "NoSuchBucket" && !is_optional(scope) => {
            alone(scope, 3, vec!["NoSuchBucket", "check the bucket's name"])
        }
        _ if is_optional(scope) => Done,
        // That is what is asked for.
        Scope::CompleteProbe | Scope::AbortProbe | Scope::DeleteManifest => Done,
        Scope::GetSource => Left("gone since they were listed"),
        Scope::GetRollup | Scope::GetLastByte | Scope::SendRollup | Scope::CopyRollup | Scope::CompleteRollup => {
            anew(times)
        }
        // Asked once more.
        Scope::HeadRollup | Scope::HeadPending | Scope::GetManifest if times == Times::Once => Done,
        Scope::HeadSource => Named(UNDELETED),
        Scope::SendProbe | Scope::CopyProbe => alone(scope, 1, vec!["NoSuchUpload"]),
        _ => alone(scope, 1, vec![]),
    }
}

/// R is not what it was, or another write of the same key is under way: back to step 1, some ten times.
fn anew(times: Times) -> Expected {
    if times == Times::Forever { Failed(vec![CONTENDED]) } else { Done }
}

/// 412 and 409.
fn changed(scope: Scope, kind: Kind, times: Times) -> Expected {
    match scope {
        _ if is_optional(scope) => Done,
        // The probe asks for it, and the manifest is somebody else's by now.
        Scope::CompleteProbe | Scope::DeleteManifest => Done,
        Scope::PutManifest | Scope::PutRollup | Scope::CopyRollup | Scope::CompleteRollup => anew(times),
        Scope::GetRollup | Scope::GetLastByte if kind == Kind::PreconditionFailed => anew(times),
        Scope::GetSource if kind == Kind::PreconditionFailed => Left("replaced since they were listed"),
        Scope::GetSource => Named(UNREADABLE),
        Scope::HeadSource | Scope::DeleteSources => Named(UNDELETED),
        _ => alone(scope, 1, vec![]),
    }
}

/// Nothing was written: run again. A store that refuses the probe's copy so is one that cannot check appends.
fn digest(scope: Scope) -> Expected {
    match scope {
        _ if is_optional(scope) => Done,
        Scope::CopyProbe => Done,
        Scope::GetSource => Named(UNREADABLE),
        Scope::HeadSource | Scope::DeleteSources => Named(UNDELETED),
        _ => alone(scope, 1, vec![]),
    }
}

/// What may stay behind when the fault is over and another pass has done everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    Nothing,
    /// An upload: invisible, and a lifecycle rule ends it.
    Upload,
    /// A probe of a few bytes: safe to delete.
    Probe,
}

/// An upload whose id was never told cannot be aborted by its own pass; a later one ends it when the rollup has moved on
/// since. Neither an upload nor a probe can go where S3 refuses it.
pub(crate) fn leftover(scope: Scope, kind: Kind, times: Times) -> Leftover {
    let told = told(scope, kind);
    let refused = match told {
        Told::NoAnswer { applied } => times == Times::Forever && !applied,
        Told::Success => false,
        _ => true,
    };
    match scope {
        Scope::CreateRollup if told == (Told::NoAnswer { applied: true }) && times == Times::Forever => {
            Leftover::Nothing
        }
        Scope::CreateProbe | Scope::CreateRollup if told == (Told::NoAnswer { applied: true }) => Leftover::Upload,
        Scope::AbortProbe | Scope::AbortRollup if refused => Leftover::Upload,
        Scope::DeleteProbe if refused => Leftover::Probe,
        _ => Leftover::Nothing,
    }
}
