//! Chooses the challenge by which a certificate's names are proved to lead to this edge.
//!
//! In: the block `acme` of a certificate, and the listeners. Out: the challenge. Source: RFC 8555 §8.3 (port 80);
//! RFC 8737 §3 (port 443).

use pushgate_plugins::unix::is_unix;

use super::{Acme, Challenge, Config, Listener, Mode};

impl Config {
    /// Puts the name of each certificate into its block `acme`.
    pub(crate) fn name_acme(&mut self) {
        for (name, certificate) in &mut self.certificates {
            if let Some(acme) = &mut certificate.acme {
                acme.name.clone_from(name);
            }
        }
    }

    /// Returns the challenge of a certificate: the one that its block names, else the first that a listener answers
    /// at the port where authorities ask, else the first that a listener answers at another port. `None`: no
    /// listener answers any.
    pub fn challenge_of(&self, acme: &Acme) -> Option<Challenge> {
        let both = [Challenge::Http, Challenge::TlsAlpn];
        let is_answered = |c: &Challenge| self.listeners.iter().any(|l| c.is_answered_by(l));
        acme.challenge
            .or_else(|| both.into_iter().find(|c| self.is_asked_at(*c)))
            .or_else(|| both.into_iter().find(is_answered))
    }

    /// Whether a listener answers `challenge` at the port where authorities ask. Another port is right if something
    /// in front of the edge maps it.
    pub fn is_asked_at(&self, challenge: Challenge) -> bool {
        let mut all = self
            .listeners
            .iter()
            .filter(|l| challenge.is_answered_by(l));
        all.any(|l| l.bind.iter().any(|b| b.port() == challenge.port()))
    }
}

impl Challenge {
    /// Returns the port at which authorities ask.
    pub fn port(self) -> u16 {
        match self {
            Challenge::Http => 80,
            Challenge::TlsAlpn => 443,
        }
    }

    /// Returns the word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Challenge::Http => "http-01",
            Challenge::TlsAlpn => "tls-alpn-01",
        }
    }

    /// Whether `listener` answers this challenge.
    pub fn is_answered_by(self, listener: &Listener) -> bool {
        let outside = listener.bind.iter().any(|b| !is_unix(b.ip()));
        outside
            && match self {
                Challenge::Http => listener.mode == Mode::Http && listener.tls.is_none(),
                Challenge::TlsAlpn => listener.tls.is_some(),
            }
    }
}
