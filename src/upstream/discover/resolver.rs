//! Asks DNS servers, and translates their answers and errors.
//!
//! In: a [`Source`]. Out: an [`Answer`] or a [`DiscoverError`]. hickory is the transport: it uses a random
//! port and id for each question, ignores answers that do not fit, and repeats truncated ones over TCP.
//! Nothing is cached here: the caller keeps the answer for its TTL.
//! Source: FAULTS D66.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::task::JoinSet;

use super::answer::{self, Rules, Service};
use super::{Answer, DiscoverError, Source, Target};
use crate::config::{Family, Resolvers};

/// How often a question is repeated to each server.
const RETRIES: usize = 1;
/// Most hosts of SRV records that are looked up at once.
const AT_ONCE: usize = 16;
/// Most hosts of one SRV answer.
const MAX_HOSTS: usize = super::MAX_NODES;
/// Longest lookup, in `timeout`s, for any number of servers and search domains.
const MAX_TIMEOUTS: u32 = 8;

/// Asks the DNS servers of a configuration.
pub struct Resolver {
    dns: TokioResolver,
    conf: Resolvers,
}

impl Resolver {
    /// Prepares the lookups. Without servers in `conf` it reads `/etc/resolv.conf`; if that fails it asks
    /// this machine, as the C library does.
    ///
    /// Errors: those of hickory.
    pub fn new(conf: &Resolvers) -> Result<Arc<Resolver>, String> {
        let given = |addresses: &[SocketAddr]| {
            let servers = addresses.iter().map(server).collect();
            let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        };
        let mut builder = match conf.addresses.as_slice() {
            [] => TokioResolver::builder_tokio().unwrap_or_else(|e| {
                log::warn!("resolvers: cannot use /etc/resolv.conf: {e}; asking 127.0.0.1:53");
                given(&[(Ipv4Addr::LOCALHOST, 53).into()])
            }),
            addresses => given(addresses),
        };
        let options = builder.options_mut();
        options.timeout = conf.timeout.0;
        options.attempts = RETRIES;
        options.cache_size = 0;
        options.edns0 = true;
        Ok(Arc::new(Resolver {
            dns: builder.build().map_err(|e| e.to_string())?,
            conf: conf.clone(),
        }))
    }

    /// Looks `source` up.
    ///
    /// Errors: no server answered in time, or the answer has no usable address.
    pub async fn ask(&self, source: &Source) -> Result<Answer, DiscoverError> {
        let whole = self.conf.timeout.0 * MAX_TIMEOUTS;
        match tokio::time::timeout(whole, self.look_up(source)).await {
            Ok(answer) => answer,
            Err(_) => Err(DiscoverError::Timeout),
        }
    }

    async fn look_up(&self, source: &Source) -> Result<Answer, DiscoverError> {
        let name = name(source.name.as_str())?;
        let (all, ttl) = match source.port {
            Some(port) => {
                let (ips, ttl) = addresses(&self.dns, &name, source.family).await?;
                let target = |ip| Target {
                    address: SocketAddr::new(ip, port),
                    weight: 1,
                    host: source.name.bare().to_owned(),
                };
                (ips.into_iter().map(target).collect(), ttl)
            }
            None => self.services(name, source.family).await?,
        };
        let rules = Rules {
            allow: &self.conf.allow,
            localhost: source.name.is_localhost(),
        };
        let count = all.len();
        let (targets, left_out) = answer::targets(all, rules);
        if targets.is_empty() {
            return Err(DiscoverError::Unusable(count));
        }
        let ttl = Duration::from_secs(ttl.into());
        Ok(Answer {
            targets,
            ttl: ttl.clamp(self.conf.min_ttl.0, self.conf.max_ttl.0),
            left_out,
        })
    }

    /// Looks up the SRV records of a name, then the addresses of their hosts. A host that does not exist is
    /// left out. A failed lookup of one host fails the whole answer.
    async fn services(
        &self,
        of: Name,
        family: Family,
    ) -> Result<(Vec<Target>, u32), DiscoverError> {
        let (records, mut ttl) = records(&self.dns, &of, RecordType::SRV).await?;
        let services = records.iter().filter_map(|r| match &r.data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                host: srv.target.to_ascii().trim_end_matches('.').to_owned(),
            }),
            _ => None,
        });
        let services = answer::first_of(services.collect());
        if services.is_empty() {
            return Err(DiscoverError::Empty);
        }
        let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        let mut asking = JoinSet::new();
        let mut waiting = services.iter().map(|s| s.host.clone()).collect::<Vec<_>>();
        waiting.sort_unstable();
        waiting.dedup();
        waiting.truncate(MAX_HOSTS);
        loop {
            while asking.len() < AT_ONCE
                && let Some(host) = waiting.pop()
            {
                let (dns, name) = (self.dns.clone(), name(&format!("{host}.")));
                asking.spawn(async move {
                    let found = addresses(&dns, &name?, family).await;
                    Ok::<_, DiscoverError>((host, found))
                });
            }
            match asking.join_next().await {
                None => break,
                Some(Err(e)) => return Err(DiscoverError::Io(e.to_string())),
                Some(Ok(asked)) => match asked? {
                    (_, Err(DiscoverError::NoName | DiscoverError::Empty)) => {}
                    (_, Err(failure)) => return Err(failure),
                    (host, Ok((ips, own))) => {
                        ttl = ttl.min(own);
                        hosts.insert(host, ips);
                    }
                },
            }
        }
        let most = services.iter().map(|s| s.weight).max().unwrap_or(0);
        let targets = services.iter().flat_map(|s| {
            let ips = hosts.get(&s.host).into_iter().flatten();
            ips.map(move |ip| Target {
                address: SocketAddr::new(*ip, s.port),
                weight: answer::weight(s.weight, most),
                host: s.host.clone(),
            })
        });
        let targets: Vec<Target> = targets.collect();
        match targets.is_empty() {
            true => Err(DiscoverError::Empty),
            false => Ok((targets, ttl)),
        }
    }
}

/// Returns the addresses of a name, and for how many seconds they may be used.
async fn addresses(
    dns: &TokioResolver,
    name: &Name,
    family: Family,
) -> Result<(Vec<IpAddr>, u32), DiscoverError> {
    let v4 = || ips(dns, name, RecordType::A);
    let v6 = || ips(dns, name, RecordType::AAAA);
    match family {
        Family::Ipv4 => v4().await,
        Family::Ipv6 => v6().await,
        Family::Auto => match v4().await {
            Err(DiscoverError::Empty) => v6().await,
            other => other,
        },
        Family::Both => match (v4().await, v6().await) {
            (Ok((mut all, a)), Ok((more, b))) => {
                all.extend(more);
                Ok((all, a.min(b)))
            }
            (Ok(found), Err(DiscoverError::Empty)) | (Err(DiscoverError::Empty), Ok(found)) => {
                Ok(found)
            }
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        },
    }
}

async fn ips(
    dns: &TokioResolver,
    name: &Name,
    kind: RecordType,
) -> Result<(Vec<IpAddr>, u32), DiscoverError> {
    let (records, ttl) = records(dns, name, kind).await?;
    let ip = |r: &Record| match &r.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    Ok((records.iter().filter_map(ip).collect(), ttl))
}

/// Returns the records of `kind`, at least one, and the smallest TTL of the answer with its aliases.
async fn records(
    dns: &TokioResolver,
    name: &Name,
    kind: RecordType,
) -> Result<(Vec<Record>, u32), DiscoverError> {
    let found = dns.lookup(name.clone(), kind).await.map_err(failure)?;
    let all = found.answers();
    let ttl = all.iter().map(|r| r.ttl).min().unwrap_or(0);
    let wanted = all.iter().filter(|r| r.record_type() == kind);
    let wanted: Vec<Record> = wanted.cloned().collect();
    match wanted.is_empty() {
        true => Err(DiscoverError::Empty),
        false => Ok((wanted, ttl)),
    }
}

fn name(text: &str) -> Result<Name, DiscoverError> {
    Name::from_ascii(text).map_err(|e| DiscoverError::Io(e.to_string()))
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut both = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    both.iter_mut().for_each(|c| c.port = address.port());
    NameServerConfig::new(address.ip(), true, both)
}

fn failure(e: NetError) -> DiscoverError {
    match e {
        NetError::Timeout => DiscoverError::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DiscoverError::NoName,
            _ => DiscoverError::Empty,
        },
        NetError::Dns(DnsError::ResponseCode(code)) => DiscoverError::Server(code.to_string()),
        other => DiscoverError::Io(other.to_string()),
    }
}
