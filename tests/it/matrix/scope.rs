//! The requests of a pass, and the faults that may meet each of them: the two lists that the matrix is generated from.

use std::time::Duration;

use testbed::{FaultKind, Operation, When};

use crate::bench::{Bench, LOGS, OUT};
use crate::stage::{KEPT, LARGE, NEW, PENDING, REPLACED, SMALL, SOURCE};

/// What an answer carries beside its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// A document of S3's.
    Document,
    /// A whole object, with its checksum.
    Object,
    /// A byte of an object. S3 sends no checksum with a range.
    Byte,
}

macro_rules! list {
    ($(#[$meta:meta])* $name:ident { $($(#[$item:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$item])* $variant,)* }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];
        }
    };
}

list! {
    /// One kind of request that a pass sends. `Probe` stands for the pass's question whether the store enforces
    /// conditions, `Rollup` for a rollup itself.
    Scope {
        ListSources,
        ListManifests,
        /// Whether a rollup whose HEAD was denied is there at all.
        ListRollup,
        /// Whether a kept source whose HEAD was answered 404 is there.
        ListKept,
        /// Uploads of a rollup that killed passes left.
        ListUploads,
        GetSource,
        GetManifest,
        GetRollup,
        /// Of a large rollup that another tool wrote: does it end in a newline?
        GetLastByte,
        HeadRollup,
        /// Of a rollup whose last batch is not settled.
        HeadPending,
        /// Of a source that was not deleted, since another object stands there.
        HeadSource,
        /// Of a source that a kept rollup remembers and that is not listed.
        HeadKept,
        /// Of the probe, after its PUT was not answered.
        HeadProbe,
        GetTags,
        PutProbe,
        PutManifest,
        PutRollup,
        CreateProbe,
        CreateRollup,
        SendProbe,
        SendRollup,
        CopyProbe,
        CopyRollup,
        CompleteProbe,
        CompleteRollup,
        AbortProbe,
        /// After somebody else changed the rollup.
        AbortRollup,
        DeleteSources,
        DeleteManifest,
        DeleteProbe,
    }
}

impl Scope {
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::ListSources | Self::ListManifests | Self::ListRollup | Self::ListKept => Operation::ListObjectsV2,
            Self::ListUploads => Operation::ListMultipartUploads,
            Self::GetSource | Self::GetManifest | Self::GetRollup | Self::GetLastByte => Operation::GetObject,
            Self::HeadRollup | Self::HeadPending | Self::HeadSource | Self::HeadKept | Self::HeadProbe => {
                Operation::HeadObject
            }
            Self::GetTags => Operation::GetObjectTagging,
            Self::PutProbe | Self::PutManifest | Self::PutRollup => Operation::PutObject,
            Self::CreateProbe | Self::CreateRollup => Operation::CreateMultipartUpload,
            Self::SendProbe | Self::SendRollup => Operation::UploadPart,
            Self::CopyProbe | Self::CopyRollup => Operation::UploadPartCopy,
            Self::CompleteProbe | Self::CompleteRollup => Operation::CompleteMultipartUpload,
            Self::AbortProbe | Self::AbortRollup => Operation::AbortMultipartUpload,
            Self::DeleteSources => Operation::DeleteObjects,
            Self::DeleteManifest | Self::DeleteProbe => Operation::DeleteObject,
        }
    }

    pub(crate) fn bucket(self) -> &'static str {
        match self {
            Self::ListSources
            | Self::ListKept
            | Self::GetSource
            | Self::HeadSource
            | Self::HeadKept
            | Self::DeleteSources => LOGS,
            _ => OUT,
        }
    }

    pub(crate) fn is_of_the_probe(self) -> bool {
        matches!(
            self,
            Self::HeadProbe
                | Self::PutProbe
                | Self::CreateProbe
                | Self::SendProbe
                | Self::CopyProbe
                | Self::CompleteProbe
                | Self::AbortProbe
                | Self::DeleteProbe
        )
    }

    /// The rollup that is worked on.
    pub(crate) fn rollup(self) -> &'static str {
        match self {
            Self::GetSource | Self::ListRollup => NEW,
            Self::GetRollup
            | Self::HeadRollup
            | Self::GetTags
            | Self::PutManifest
            | Self::PutRollup
            | Self::DeleteSources
            | Self::DeleteManifest => SMALL,
            Self::GetManifest | Self::HeadPending | Self::HeadSource | Self::HeadKept | Self::ListKept => PENDING,
            _ => LARGE,
        }
    }

    pub(crate) fn body(self) -> Body {
        match self.operation() {
            Operation::GetObject if self == Self::GetLastByte => Body::Byte,
            Operation::GetObject => Body::Object,
            Operation::ListObjectsV2
            | Operation::ListMultipartUploads
            | Operation::GetObjectTagging
            | Operation::CreateMultipartUpload
            | Operation::UploadPartCopy
            | Operation::CompleteMultipartUpload
            | Operation::DeleteObjects => Body::Document,
            _ => Body::Empty,
        }
    }

    /// The requests that are met.
    pub(crate) fn when(self) -> When {
        let when = When::operation(self.operation()).bucket(self.bucket());
        match self {
            Self::ListSources => when.prefix("logs/"),
            Self::ListManifests => when.prefix("rollup/_manifests/"),
            Self::ListRollup => when.prefix(NEW),
            Self::ListKept => when.prefix(KEPT),
            Self::ListUploads => when.prefix(LARGE),
            Self::GetSource => when.key(SOURCE),
            Self::HeadSource => when.key(REPLACED),
            Self::HeadKept => when.key(KEPT),
            Self::DeleteSources => when.key_prefix("logs/small/"),
            Self::GetManifest => when.key_prefix("rollup/_manifests/pending/"),
            Self::PutManifest | Self::DeleteManifest => when.key_prefix("rollup/_manifests/small/"),
            _ if self.is_of_the_probe() => when.key_where(|key| key.contains("/_probe-")),
            _ => when.key(self.rollup()),
        }
    }

    pub(crate) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::HeadKept | Self::ListKept => &[("ROLLUP_BATCH_OBJECTS", "2"), ("ROLLUP_KEEP", "true")],
            _ => &[("ROLLUP_BATCH_OBJECTS", "2")],
        }
    }

    /// What has a pass send such a request at all.
    pub(crate) fn provoke(self, bench: &Bench) {
        match self {
            Self::ListRollup => bench.bed.hide_missing(OUT),
            Self::HeadProbe => {
                bench.bed.fault(Self::PutProbe.when(), FaultKind::LostAnswer);
            }
            Self::AbortRollup => {
                bench.bed.fault(Self::CompleteRollup.when(), FaultKind::Status(412, "PreconditionFailed"));
            }
            _ => {}
        }
    }
}

list! {
    /// What goes wrong.
    Kind {
        SlowDown,
        InternalError,
        Denied,
        NotFound,
        PreconditionFailed,
        Conflict,
        /// The bytes that came are not those of the checksum that was sent with them.
        BadDigest,
        ResetBefore,
        LostAnswer,
        ErrorAfter,
        HangBefore,
        HangAfter,
        Truncated,
        Short,
        Long,
        /// The bytes that were sent back are not those of their checksum.
        WrongChecksum,
        SlowLoris,
        OkWithError,
        OkWithErrorAfter,
    }
}

impl Kind {
    pub(crate) fn fault(self, scope: Scope) -> FaultKind {
        match self {
            Self::SlowDown => FaultKind::Status(503, "SlowDown"),
            Self::InternalError => FaultKind::Status(500, "InternalError"),
            Self::Denied => FaultKind::Status(403, "AccessDenied"),
            Self::NotFound => FaultKind::Status(404, missing(scope)),
            Self::PreconditionFailed => FaultKind::Status(412, "PreconditionFailed"),
            Self::Conflict => FaultKind::Status(409, "ConditionalRequestConflict"),
            Self::BadDigest => FaultKind::Status(400, "BadDigest"),
            Self::ResetBefore => FaultKind::ResetBefore,
            Self::LostAnswer => FaultKind::LostAnswer,
            Self::ErrorAfter => FaultKind::StatusAfter(500, "InternalError"),
            Self::HangBefore => FaultKind::HangBefore,
            Self::HangAfter => FaultKind::HangAfter,
            Self::Truncated => FaultKind::TruncatedBody,
            Self::Short => FaultKind::ShortBody,
            Self::Long => FaultKind::LongBody,
            Self::WrongChecksum => FaultKind::WrongChecksum,
            Self::SlowLoris => FaultKind::Trickle(Duration::from_secs(10)),
            Self::OkWithError => FaultKind::OkWithErrorBody("InternalError"),
            Self::OkWithErrorAfter => FaultKind::OkWithErrorBodyAfter("InternalError"),
        }
    }

    /// Needs an answer with a body.
    pub(crate) fn is_of_bodies(self) -> bool {
        matches!(self, Self::Truncated | Self::Short | Self::Long | Self::WrongChecksum | Self::SlowLoris)
    }
}

/// S3's own words for what a request did not find.
pub(crate) fn missing(scope: Scope) -> &'static str {
    match scope.operation() {
        Operation::GetObject | Operation::HeadObject | Operation::GetObjectTagging | Operation::DeleteObject => {
            "NoSuchKey"
        }
        Operation::UploadPart
        | Operation::UploadPartCopy
        | Operation::CompleteMultipartUpload
        | Operation::AbortMultipartUpload => "NoSuchUpload",
        _ => "NoSuchBucket",
    }
}

list! {
    /// How often.
    Times {
        Once,
        Thrice,
        Forever,
    }
}

impl Times {
    pub(crate) fn of(self, when: When) -> When {
        match self {
            Self::Once => when,
            Self::Thrice => when.times(3),
            Self::Forever => when.always(),
        }
    }
}
