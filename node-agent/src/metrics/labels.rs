//! Label values: closed enums, so that the set of series is known before anything happens.

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The label value.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

label! {
    /// Why a message or transfer failed.
    TransferErrorReason {
        /// No answer, or the connection could not be opened.
        Unreachable => "unreachable",
        /// The connection or stream ended in the middle.
        Interrupted => "interrupted",
        /// It took longer than allowed.
        TimedOut => "timed_out",
        /// The certificate, key or address of the peer does not allow it.
        Unauthorised => "unauthorised",
        /// The bytes are no valid message.
        Malformed => "malformed",
        /// A length, count or queue went over its bound.
        OverLimit => "over_limit",
        /// The peer answered that it will not.
        Refused => "refused",
        /// The local disk or network stack failed.
        Local => "local",
    }
}

label! {
    /// Where verified package bytes came from.
    ContentSource {
        /// At the server the package's source; at a client of the Central Office the server, from its library.
        Origin => "origin",
        /// The parent office.
        Parent => "parent",
        /// A peer of the same office.
        Office => "office",
        /// This node's own disk: an older version or another package.
        Local => "local",
    }
}

label! {
    /// Over which kind of link chunk payload arrived.
    ContentLink {
        /// Between offices: port 34750.
        Wan => "wan",
        /// Inside an office: port 34760.
        Lan => "lan",
    }
}

label! {
    /// Why a chunk was thrown away.
    ChunkRejection {
        /// Its bytes are not what the signed manifest names.
        DigestMismatch => "digest_mismatch",
        /// Its length is not what the signed manifest names.
        WrongLength => "wrong_length",
        /// Nobody asked for it.
        NotRequested => "not_requested",
        /// It was here already; its sender is not blamed for it.
        Duplicate => "duplicate",
        /// Its package is not, or no longer, known.
        UnknownPackage => "unknown_package",
    }
}

label! {
    /// What a node is doing with a package.
    PackageState {
        /// Known, nothing to do yet: not before its time, or nothing to fetch from.
        Pending => "pending",
        /// The server reads it from its source.
        Ingesting => "ingesting",
        /// Chunks are arriving.
        Transferring => "transferring",
        /// Stopped by its rollout.
        Paused => "paused",
        /// Held for offices below, not published here.
        Transit => "transit",
        /// Published, whole and verified (at the server: in the library).
        Complete => "complete",
        /// Stopped by an error that needs somebody.
        Failed => "failed",
    }
}
