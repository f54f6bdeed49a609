//! Certificates for one test: an authority and leaves for any names, as PEM files in a temporary folder.
//!
//! In: names, key type, expiry. Out: files for the edge, trust for the clients.

use std::path::{Path, PathBuf};

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslContext, SslFiletype, SslMethod};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{
    X509, X509Builder, X509CrlBuilder, X509Extension, X509NameBuilder, X509RevokedBuilder,
};

/// Type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA, 2048 bits.
    Rsa,
}

/// An authority and the folder with its files.
pub struct Certs {
    dir: tempfile::TempDir,
    ca: X509,
    ca_key: PKey<Private>,
}

/// The PEM files of one leaf.
pub struct Leaf {
    /// Leaf, then authority.
    pub chain: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

impl Leaf {
    /// SHA-256 of its public key; a browser that is given this hash accepts the certificate.
    pub fn pin(&self) -> String {
        let pem = std::fs::read(&self.chain).expect("its chain");
        let key = X509::from_pem(&pem).and_then(|leaf| leaf.public_key());
        let der = key
            .and_then(|key| key.public_key_to_der())
            .expect("its key");
        openssl::base64::encode_block(&openssl::sha::sha256(&der))
    }

    /// TLS context for a node that ends TLS with this leaf. It offers no ALPN, because it speaks HTTP/1.1
    /// only.
    pub fn context(&self) -> SslContext {
        let method = SslMethod::tls_server();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(method).expect("an acceptor");
        acceptor
            .set_certificate_chain_file(&self.chain)
            .expect("its chain");
        acceptor
            .set_private_key_file(&self.key, SslFiletype::PEM)
            .expect("its key");
        acceptor.build().into_context()
    }
}

impl Certs {
    /// Creates an authority, with its certificate in `ca.pem` and its key in `ca.key`.
    pub fn new() -> Certs {
        let ca_key = key(Key::Ecdsa);
        let mut builder = builder("Pushgate test authority", &ca_key, 30);
        let constraints = BasicConstraints::new().critical().ca().build();
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build();
        for extension in [constraints, usage] {
            let extension = extension.expect("a constant extension");
            builder.append_extension(extension).expect("append");
        }
        builder
            .sign(&ca_key, MessageDigest::sha256())
            .expect("sign");
        let certs = Certs {
            dir: tempfile::tempdir().expect("a folder for certificates"),
            ca: builder.build(),
            ca_key,
        };
        certs.write("ca.pem", certs.ca.to_pem().expect("PEM"));
        let key = certs.ca_key.private_key_to_pem_pkcs8();
        certs.write("ca.key", key.expect("PEM"));
        certs
    }

    /// The folder of all files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The authority's certificate file, for clients.
    pub fn ca_file(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }

    /// The authority's certificate.
    pub fn ca(&self) -> &X509 {
        &self.ca
    }

    /// Issues a leaf valid from an hour ago, for `names` (wildcards allowed), as `NAME.pem` and `NAME.key`.
    pub fn leaf(&self, file: &str, names: &[&str], kind: Key) -> Leaf {
        self.issue(file, names, kind, 30, None)
    }

    /// Returns the first certificate of a PEM file, in DER.
    pub fn der(&self, file: &str) -> Vec<u8> {
        let pem = std::fs::read(self.dir().join(file)).expect("a file of the test");
        let leaf = X509::from_pem(&pem).and_then(|leaf| leaf.to_der());
        leaf.expect("PEM")
    }

    /// As [`Certs::leaf`], with the URL of an OCSP responder in the certificate.
    pub fn leaf_of_responder(&self, file: &str, names: &[&str], url: &str) -> Leaf {
        self.issue(file, names, Key::Ecdsa, 30, Some(url))
    }

    /// Issues a leaf that expired yesterday.
    pub fn expired(&self, file: &str, names: &[&str]) -> Leaf {
        self.issue(file, names, Key::Ecdsa, -1, None)
    }

    /// Issues a leaf valid from `from` to `until`, in seconds from now.
    pub fn leaf_within(&self, file: &str, names: &[&str], from: i64, until: i64) -> Leaf {
        let key = key(Key::Ecdsa);
        let mut builder = builder(names.first().expect("at least one name"), &key, 1);
        let times = builder
            .set_not_before(in_seconds(from).as_ref())
            .and_then(|()| builder.set_not_after(in_seconds(until).as_ref()));
        times.expect("certificate fields");
        self.sign(file, names, key, builder, None)
    }

    /// Writes a revocation list of the authority, in PEM, that names the leaves in the files `revoked`. The next
    /// list is due `until` seconds from now.
    pub fn crl(&self, file: &str, revoked: &[&str], until: i64) -> PathBuf {
        self.crl_within(file, revoked, until.min(0) - 3600, until)
    }

    /// As [`Self::crl`], for a list whose time begins `from` seconds from now.
    pub fn crl_within(&self, file: &str, revoked: &[&str], from: i64, until: i64) -> PathBuf {
        let made = || -> Result<Vec<u8>, openssl::error::ErrorStack> {
            let extension = |oid: &str, der: &[u8]| {
                let value = Asn1OctetString::new_from_bytes(der)?;
                X509Extension::new_from_der(Asn1Object::from_str(oid)?.as_ref(), false, &value)
            };
            let mut list = X509CrlBuilder::new()?;
            list.set_issuer_name(self.ca.subject_name())?;
            list.set_last_update(in_seconds(from).as_ref())?;
            list.set_next_update(in_seconds(until).as_ref())?;
            // An authorityKeyIdentifier and a cRLNumber: RFC 5280 §5.2 wants both.
            let issuer = self.ca.subject_key_id();
            let issuer = issuer.map_or(&[0; 20][..], |id| id.as_slice());
            let issuer = [&[0x30, 22, 0x80, 20], issuer].concat();
            list.append_extension(extension("2.5.29.35", &issuer)?)?;
            list.append_extension(extension("2.5.29.20", &[2, 1, 1])?)?;
            for leaf in revoked {
                let pem = std::fs::read(self.dir().join(leaf)).expect("a leaf");
                let mut one = X509RevokedBuilder::new()?;
                one.set_serial_number(X509::from_pem(&pem)?.serial_number())?;
                one.set_revocation_date(in_seconds(-3600).as_ref())?;
                list.add_revoked(one.build())?;
            }
            list.sign(&self.ca_key, MessageDigest::sha256())?;
            list.build()?.to_pem()
        };
        self.write(file, made().expect("a revocation list"))
    }

    /// Creates an authority that this one issued. Its `ca.pem` has only its own certificate, not this one's.
    pub fn intermediate(&self) -> Certs {
        let mut below = Certs::new();
        let made = || -> Result<X509, openssl::error::ErrorStack> {
            let mut builder = builder("Pushgate test intermediate", &below.ca_key, 30);
            builder.set_issuer_name(self.ca.subject_name())?;
            builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
            builder.sign(&self.ca_key, MessageDigest::sha256())?;
            Ok(builder.build())
        };
        below.ca = made().expect("an intermediate");
        below.write("ca.pem", below.ca.to_pem().expect("PEM"));
        below
    }

    fn issue(
        &self,
        file: &str,
        names: &[&str],
        kind: Key,
        days: i64,
        responder: Option<&str>,
    ) -> Leaf {
        let key = key(kind);
        let builder = builder(names.first().expect("at least one name"), &key, days);
        self.sign(file, names, key, builder, responder)
    }

    fn sign(
        &self,
        file: &str,
        names: &[&str],
        key: PKey<Private>,
        mut builder: X509Builder,
        responder: Option<&str>,
    ) -> Leaf {
        builder
            .set_issuer_name(self.ca.subject_name())
            .expect("issuer");
        let mut san = SubjectAlternativeName::new();
        for name in names {
            match name.parse::<std::net::IpAddr>() {
                Ok(_) => san.ip(name),
                Err(_) => san.dns(name),
            };
        }
        let context = builder.x509v3_context(Some(&self.ca), None);
        let san = san.build(&context).expect("names");
        builder.append_extension(san).expect("append");
        if let Some(url) = responder {
            builder.append_extension(responder_of(url)).expect("append");
        }
        builder
            .sign(&self.ca_key, MessageDigest::sha256())
            .expect("sign");
        let mut chain = builder.build().to_pem().expect("PEM");
        chain.extend(self.ca.to_pem().expect("PEM"));
        Leaf {
            chain: self.write(&format!("{file}.pem"), chain),
            key: self.write(
                &format!("{file}.key"),
                key.private_key_to_pem_pkcs8().expect("PEM"),
            ),
        }
    }

    fn write(&self, file: &str, pem: Vec<u8>) -> PathBuf {
        let path = self.dir().join(file);
        std::fs::write(&path, pem).expect("write a certificate file");
        path
    }
}

/// The extension that names an OCSP responder: one access description, id-ad-ocsp with a URI (RFC 5280
/// §4.2.2.1). The URL must be shorter than 100 bytes, so that each length takes one byte.
fn responder_of(url: &str) -> X509Extension {
    let sized = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8][..], bytes].concat();
    let method = [0x06, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1];
    let uri = sized(0x86, url.as_bytes());
    let der = sized(0x30, &sized(0x30, &[&method[..], &uri].concat()));
    let oid = Asn1Object::from_str("1.3.6.1.5.5.7.1.1").expect("authorityInfoAccess");
    let value = Asn1OctetString::new_from_bytes(&der).expect("an octet string");
    X509Extension::new_from_der(&oid, false, &value).expect("an extension")
}

fn key(kind: Key) -> PKey<Private> {
    let key = match kind {
        Key::Ecdsa => EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
            .and_then(|group| EcKey::generate(&group))
            .and_then(PKey::from_ec_key),
        Key::Rsa => Rsa::generate(2048).and_then(PKey::from_rsa),
    };
    key.expect("a key")
}

fn in_seconds(seconds: i64) -> Asn1Time {
    #[expect(clippy::disallowed_methods, reason = "it does not step in a test")]
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_secs() as i64;
    Asn1Time::from_unix(now + seconds).expect("a time")
}

/// An unsigned certificate, valid until `days` from now; if that is in the past, it starts earlier.
fn builder(name: &str, key: &PKey<Private>, days: i64) -> X509Builder {
    let mut subject = X509NameBuilder::new().expect("a name");
    subject.append_entry_by_text("CN", name).expect("CN");
    let subject = subject.build();
    let serial = BigNum::from_u32(fastrand::u32(1..)).and_then(|n| n.to_asn1_integer());
    let serial = serial.expect("a serial number");
    let mut builder = X509::builder().expect("a certificate");
    let mut set = || {
        builder.set_version(2)?;
        builder.set_serial_number(&serial)?;
        builder.set_subject_name(&subject)?;
        builder.set_issuer_name(&subject)?;
        builder.set_pubkey(key)?;
        builder.set_not_before(in_seconds(days.min(0) * 172_800 - 3600).as_ref())?;
        // A minute less, so that the whole days left do not depend on the second in which the edge looks.
        builder.set_not_after(in_seconds(days * 86_400 - 60).as_ref())
    };
    set().expect("certificate fields");
    builder
}
