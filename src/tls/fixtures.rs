//! Test fixtures: certificates made at run time, a listener with them, a handshake over loopback.
//!
//! In: names, validity, kinds of keys. Out: files in a temporary folder, and what each side of a
//! real handshake saw.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{
    NameType, Ssl, SslAcceptor, SslConnector, SslConnectorBuilder, SslMethod, SslRef, SslStream,
    SslVerifyMode, SslVersion,
};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use super::tickets::Ring;
use super::{Store, TlsFront};
use crate::config::{Config, Listener};
use crate::credentials::{Certificate, TlsError};

/// A temporary folder of certificates, signed by a CA of its own.
pub struct Folder {
    pub dir: tempfile::TempDir,
    pub ca: X509,
    ca_key: PKey<Private>,
}

pub fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub fn rsa_key(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

/// The properties of a leaf; `from` and `until` are seconds from now.
pub struct Leaf<'a> {
    pub names: &'a [&'a str],
    pub common_name: &'a str,
    pub from: i64,
    pub until: i64,
    pub key: PKey<Private>,
}

/// Seconds in a day.
pub const DAY: i64 = 86_400;

impl<'a> Leaf<'a> {
    pub fn of(names: &'a [&'a str]) -> Leaf<'a> {
        Leaf {
            names,
            common_name: "leaf",
            from: -DAY,
            until: DAY,
            key: ec_key(),
        }
    }
}

fn now(offset_seconds: i64) -> Asn1Time {
    let now = crate::clock::wall().duration_since(std::time::UNIX_EPOCH);
    Asn1Time::from_unix(now.unwrap().as_secs() as i64 + offset_seconds).unwrap()
}

fn unsigned(leaf: &Leaf<'_>) -> X509Builder {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", leaf.common_name).unwrap();
    let name = name.build();
    let mut x = X509::builder().unwrap();
    x.set_version(2).unwrap();
    let serial = BigNum::from_u32(fastrand::u32(1..)).unwrap();
    x.set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    x.set_subject_name(&name).unwrap();
    x.set_issuer_name(&name).unwrap();
    x.set_pubkey(&leaf.key).unwrap();
    x.set_not_before(&now(leaf.from)).unwrap();
    x.set_not_after(&now(leaf.until)).unwrap();
    x
}

impl Folder {
    pub fn new() -> Folder {
        let leaf = Leaf {
            common_name: "test CA",
            ..Leaf::of(&[])
        };
        let mut x = unsigned(&leaf);
        x.append_extension(BasicConstraints::new().critical().ca().build().unwrap())
            .unwrap();
        x.sign(&leaf.key, MessageDigest::sha256()).unwrap();
        Folder {
            dir: tempfile::tempdir().unwrap(),
            ca: x.build(),
            ca_key: leaf.key,
        }
    }

    /// Returns another certificate of the CA: the same name and key, valid within seconds from now.
    pub fn same_ca(&self, from: i64, until: i64) -> X509 {
        let leaf = Leaf {
            common_name: "test CA",
            from,
            until,
            key: self.ca_key.clone(),
            ..Leaf::of(&[])
        };
        let mut x = unsigned(&leaf);
        x.append_extension(BasicConstraints::new().critical().ca().build().unwrap())
            .unwrap();
        x.sign(&self.ca_key, MessageDigest::sha256()).unwrap();
        x.build()
    }

    /// Writes `{word}.pem` (leaf, CA) and `{word}.key`; returns the leaf.
    pub fn issue(&self, word: &str, leaf: &Leaf<'_>) -> X509 {
        let mut x = unsigned(leaf);
        x.set_issuer_name(self.ca.subject_name()).unwrap();
        if !leaf.names.is_empty() {
            let mut san = SubjectAlternativeName::new();
            leaf.names.iter().for_each(|name| {
                san.dns(name);
            });
            let san = san.build(&x.x509v3_context(Some(&self.ca), None)).unwrap();
            x.append_extension(san).unwrap();
        }
        x.sign(&self.ca_key, MessageDigest::sha256()).unwrap();
        let x = x.build();
        let chain = [x.to_pem().unwrap(), self.ca.to_pem().unwrap()].concat();
        self.write(&format!("{word}.pem"), &chain);
        self.write(
            &format!("{word}.key"),
            &leaf.key.private_key_to_pem_pkcs8().unwrap(),
        );
        x
    }

    pub fn write(&self, file: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(file);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn certificate(word: &str) -> Certificate {
        Certificate {
            chain: Some(format!("{word}.pem").into()),
            key: Some(format!("{word}.key").into()),
            ..Certificate::default()
        }
    }

    /// Builds a configuration with certificates called `words` and one listener whose `tls:` is `tls`.
    pub fn config(&self, words: &[&str], mode: &str, tls: &str) -> (Config, Listener) {
        let yaml = format!("listeners: [{{ name: push, bind: [], mode: {mode}, tls: {tls} }}]");
        let mut config: Config = serde_yaml::from_str(&yaml).unwrap();
        config.dir = self.dir.path().to_owned();
        for word in words {
            config
                .certificates
                .insert((*word).into(), Folder::certificate(word));
        }
        let listener = config.listeners[0].clone();
        (config, listener)
    }
}

/// Builds the acceptors of `listener`, with ticket keys of their own.
pub fn front_of(listener: &Listener, config: &Config) -> Result<TlsFront, TlsError> {
    let ring = Ring::new(config)?;
    TlsFront::new(
        listener,
        &Store::load(config, &Store::default())?,
        ring,
        &config.dir,
    )
}

/// What the client and the server saw of a handshake.
#[derive(Debug)]
pub struct Seen {
    pub leaf_der: Vec<u8>,
    pub chain_len: usize,
    pub alpn: Option<String>,
    pub resumed: bool,
    pub server_name: Option<String>,
    pub server_alpn: Option<String>,
    pub version: SslVersion,
}

/// Returns a client with OpenSSL's defaults that accepts any certificate.
pub fn client() -> SslConnectorBuilder {
    let mut client = SslConnector::builder(SslMethod::tls_client()).unwrap();
    client.set_verify(SslVerifyMode::NONE);
    client
}

/// Does a handshake and sends one byte each way. `name` is sent unchanged, even an IP address. `tune`
/// may set a session. Errors: the client's error as text.
pub fn shake(
    acceptor: SslAcceptor,
    client: &SslConnector,
    name: Option<&str>,
    tune: impl FnOnce(&mut SslRef),
) -> Result<Seen, String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let planned = super::guard::tests::PLANNED.get();
    let server = thread::spawn(move || {
        super::guard::tests::PLANNED.set(planned);
        let mut tls = acceptor.accept(listener.accept().unwrap().0).ok()?;
        tls.write_all(b"x").ok()?;
        let _ = tls.read(&mut [0]);
        let ssl = tls.ssl();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = ssl.servername(NameType::HOST_NAME).map(str::to_owned);
        Some((
            name,
            ssl.selected_alpn_protocol().map(text),
            ssl.version2().unwrap(),
        ))
    });
    let mut ssl = Ssl::new(client.context()).unwrap();
    name.into_iter()
        .for_each(|name| ssl.set_hostname(name).unwrap());
    tune(&mut ssl);
    let tcp = TcpStream::connect(address).unwrap();
    let seen = (|| -> Result<Seen, String> {
        let mut tls = SslStream::new(ssl, tcp).unwrap();
        tls.connect().map_err(|e| e.to_string())?;
        tls.read_exact(&mut [0]).map_err(|e| e.to_string())?;
        tls.write_all(b"y").unwrap();
        // Without a shutdown OpenSSL marks the client's TLS 1.2 session as not resumable.
        let _ = tls.shutdown();
        let ssl = tls.ssl();
        Ok(Seen {
            leaf_der: ssl.peer_certificate().unwrap().to_der().unwrap(),
            chain_len: ssl.peer_cert_chain().map_or(0, |c| c.len()),
            alpn: ssl
                .selected_alpn_protocol()
                .map(|p| String::from_utf8_lossy(p).into_owned()),
            resumed: ssl.session_reused(),
            server_name: None,
            server_alpn: None,
            version: ssl.version2().unwrap(),
        })
    })();
    let served = server.join().unwrap();
    let mut seen = seen?;
    let (name, alpn, version) = served.ok_or("the server saw no handshake")?;
    assert_eq!(version, seen.version, "both sides saw one version");
    seen.server_name = name;
    seen.server_alpn = alpn;
    Ok(seen)
}
