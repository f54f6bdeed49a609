//! Says in two letters who ended a flow and in which phase, as HAProxy's users know them.
//!
//! In: the end reason and the phase. Out: letters such as `CD` (the client, while data passed) or `SH` (the node, before
//! its answer). HAProxy has more letters for cookies; they are left out.

use super::end_reason::EndReason;

/// How far a flow had come when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It had no request yet, or no node.
    Request,
    /// It was connecting to a node.
    Connect,
    /// Its node had the request and had not answered.
    Headers,
    /// The answer, or a tunnel's bytes, passed.
    Data,
}

/// Returns the letters. `tunnel`: a WebSocket or a layer-4 flow, which either side may end in order.
pub fn letters(reason: EndReason, phase: Phase, tunnel: bool) -> &'static str {
    use EndReason::*;
    let by = |[request, connect, headers, data]: [&'static str; 4]| match phase {
        Phase::Request => request,
        Phase::Connect => connect,
        Phase::Headers => headers,
        Phase::Data => data,
    };
    match reason {
        Done => "--",
        ClientClosed | NodeClosed if tunnel && phase == Phase::Data => "--",
        ClientClosed | ClientFailed => by(["CR", "CC", "CH", "CD"]),
        NodeClosed | NodeFailed => by(["SC", "SC", "SH", "SD"]),
        NodeUnreachable | NoNode => "SC",
        Exhausted => "RC",
        BadAnswer => match phase {
            Phase::Data => "PD",
            _ => "PH",
        },
        Busy => "sQ",
        ClientLimit | Refused | BadRequest => "PR",
        Redirected => "LR",
        HeadTimeout => "cR",
        Evicted => by(["DC", "DC", "DH", "DD"]),
        Rebalanced | Drained => by(["KR", "KC", "KH", "KD"]),
        Expired => "PD",
        Internal => by(["IR", "IC", "IH", "ID"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: the letters say what HAProxy's would. Fails if a client that closes its WebSocket seems to abort, or an
    /// aborted download seems normal.
    #[test]
    fn letters_are_those_of_haproxy() {
        use EndReason::*;
        let cases = [
            (Done, Phase::Data, false, "--"),
            (ClientClosed, Phase::Data, true, "--"),
            (NodeClosed, Phase::Data, true, "--"),
            (ClientClosed, Phase::Data, false, "CD"),
            (ClientFailed, Phase::Data, true, "CD"),
            (ClientClosed, Phase::Headers, false, "CH"),
            (ClientClosed, Phase::Connect, true, "CC"),
            (ClientClosed, Phase::Request, false, "CR"),
            (NodeFailed, Phase::Headers, false, "SH"),
            (NodeFailed, Phase::Data, false, "SD"),
            (NodeUnreachable, Phase::Connect, false, "SC"),
            (BadAnswer, Phase::Headers, false, "PH"),
            (Busy, Phase::Request, false, "sQ"),
            (Refused, Phase::Request, false, "PR"),
            (Redirected, Phase::Request, false, "LR"),
            (Evicted, Phase::Data, true, "DD"),
            (Drained, Phase::Data, true, "KD"),
        ];
        for (reason, phase, tunnel, expected) in cases {
            let found = letters(reason, phase, tunnel);
            assert_eq!(found, expected, "{reason:?} {phase:?} {tunnel}");
        }
    }
}
