//! The fields of an access line.

use serde::{Deserialize, Serialize};

macro_rules! fields {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// A field of the access log.
        #[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "docs/operations.md explains each field")]
        pub enum Field {
            $($variant),+
        }

        impl Field {
            /// All fields.
            pub const ALL: &[Field] = &[$(Field::$variant),+];

            /// Returns its name in a line.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Field::$variant => $name),+
                }
            }
        }
    };
}

fields! {
    Time "time", Date "date", Event "event", Flow "flow", RequestId "request_id", Listener "listener",
    Client "client", Vip "vip", Protocol "protocol", Tls "tls", Sni "sni", Method "method", Host "host",
    Path "path", UserAgent "user_agent", Status "status", Pool "pool", Node "node", How "how",
    Retries "retries", BytesUp "bytes_up", BytesDown "bytes_down", Seconds "seconds", Reason "reason",
    Ended "ended",
}
