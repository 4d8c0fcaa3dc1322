//! Proofs by OCSP: `ngx.ocsp` and `ssl_stapling_file` with answers that OpenSSL makes, and clients that check them.

use std::path::Path;

use e2e::server::{Ports, Server, folder, run};
use e2e::tls::{Authority, curl, openssl, s_client};
use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, SerialNumber};
use tempfile::TempDir;

const CONF: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        lua_shared_dict d 1m;
        init_by_lua_block {
            ssl, ocsp = require "ngx.ssl", require "ngx.ocsp"
            function read(name) local f = assert(io.open(ngx.config.prefix() .. "conf/" .. name, "rb")) local s = f:read("*a") f:close() return s end
            function chain(name) return assert(ssl.cert_pem_to_der(read(name))) end
        }
        server {
            listen 127.0.0.1:PORT;
            location /question { content_by_lua_block { ngx.print(assert(ocsp.create_ocsp_request(chain(ngx.var.arg_chain)))) } }
            location /check {
                content_by_lua_block {
                    local ok, more = ocsp.validate_ocsp_response(read(ngx.var.arg_answer), chain(ngx.var.arg_chain), tonumber(ngx.var.arg_max))
                    ngx.print(ok, " ", ok and more and math.floor((more - ngx.time()) / 3600 + 0.5) or more)
                }
            }
            location /place {
                content_by_lua_block {
                    local der = chain(ngx.var.arg_chain)
                    ngx.say(ocsp.get_ocsp_responder_from_der_chain(der, tonumber(ngx.var.arg_max)))
                    ngx.say((select(2, ocsp.create_ocsp_request(der, 10))))
                }
            }
            location /refused {
                content_by_lua_block {
                    ngx.say(ocsp.get_ocsp_responder_from_der_chain("garbage"))
                    ngx.say(ocsp.create_ocsp_request(""))
                    ngx.say(ocsp.validate_ocsp_response(read("good.der"), "garbage"))
                    ngx.say(ocsp.set_ocsp_status_resp("x"))
                    ngx.say(pcall(ocsp.validate_ocsp_response, 1, 2))
                }
            }
            location /told { content_by_lua_block { ngx.print(ngx.shared.d:get("told")) } }
        }
        server {
            listen 127.0.0.1:PORT1 ssl;
            ssl_certificate chain.crt;
            ssl_certificate_key a.key;
            ssl_certificate_by_lua_block {
                local answer = read("good.der")
                if ssl.server_name() == "large.test" then
                    local ok, err = ocsp.set_ocsp_status_resp(("x"):rep(100000))
                    ngx.shared.d:set("told", tostring(ok) .. " " .. tostring(err))
                    return
                end
                assert(ocsp.validate_ocsp_response(answer, chain("chain.crt")))
                local ok, err = ocsp.set_ocsp_status_resp(answer)
                ngx.shared.d:set("told", tostring(ok) .. " " .. tostring(err))
            }
        }
        server {
            listen 127.0.0.1:PORT2 ssl;
            ssl_certificate chain.crt;
            ssl_certificate_key a.key;
            ssl_stapling on;
            ssl_stapling_file good.der;
            ssl_stapling_verify on;
        }
        server {
            listen 127.0.0.1:PORT3 ssl;
            ssl_certificate chain.crt;
            ssl_certificate_key a.key;
            ssl_stapling on;
        }
    }
"#;

/// `authorityInfoAccess` with `http://ocsp.test/a`.
const AUTHORITY_ACCESS: &[u8] =
    b"\x30\x20\x30\x1e\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01\x86\x12http://ocsp.test/a";

fn serial(n: u8) -> impl Fn(&mut CertificateParams) {
    move |params| params.serial_number = Some(SerialNumber::from(vec![0x90, n]))
}

/// A folder with certificates and what OpenSSL answers about them.
fn answers() -> TempDir {
    let (ca, other) = (Authority::new("Test CA"), Authority::new("Test CA"));
    let a = ca.issue_with("a.test", |params| {
        serial(1)(params);
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&oid, AUTHORITY_ACCESS.to_vec())];
    });
    let (revoked, unknown) = (ca.issue_with("r.test", serial(2)), ca.issue_with("u.test", serial(3)));
    let responder = ca.issue_with("responder", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    });
    let foreign = other.issue_with("responder", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    });
    let unfit = ca.issue("unfit");
    let chain = |leaf: &str| format!("{leaf}{}", ca.pem());
    let files = [
        (
            "index",
            "V\t350101000000Z\t\t9001\tunknown\t/CN=a.test\nR\t350101000000Z\t240101000000Z\t9002\tunknown\t/CN=r.test\nV\t350101000000Z\t\t77\tunknown\t/CN=rsa.test\n",
        ),
        ("ca.crt", ca.pem()),
        ("ca.key", &ca.key()),
        ("other.crt", other.pem()),
        ("other.key", &other.key()),
        ("a.crt", &a.certificate),
        ("a.key", &a.key),
        ("chain.crt", &chain(&a.certificate)),
        ("r.crt", &revoked.certificate),
        ("r-chain.crt", &chain(&revoked.certificate)),
        ("u.crt", &unknown.certificate),
        ("u-chain.crt", &chain(&unknown.certificate)),
        ("mixed.crt", &format!("{}{}", a.certificate, revoked.certificate)),
        ("responder.crt", &responder.certificate),
        ("responder.key", &responder.key),
        ("foreign.crt", &foreign.certificate),
        ("foreign.key", &foreign.key),
        ("unfit.crt", &unfit.certificate),
        ("unfit.key", &unfit.key),
        ("garbage.der", "garbage"),
        ("try-later.der", "\x30\x03\x0a\x01\x03"),
    ];
    let files: Vec<_> = files.iter().map(|(n, t)| (format!("conf/{n}"), *t)).collect();
    let files: Vec<_> = files.iter().map(|(n, t)| (n.as_str(), *t)).collect();
    let dir = folder("", &files);
    let conf = dir.path().join("conf");
    for (answer, leaf, signer) in [
        ("good", "a", "ca"),
        ("delegated", "a", "responder"),
        ("revoked", "r", "ca"),
        ("unknown", "u", "ca"),
        ("forged", "a", "other"),
        ("foreign", "a", "foreign"),
        ("unfit", "a", "unfit"),
    ] {
        let question = format!("-issuer ca.crt -cert {leaf}.crt");
        sign(&conf, answer, "ca", signer, &question);
    }
    openssl(
        &conf,
        "req -x509 -newkey rsa:2048 -nodes -keyout rsa-ca.key -out rsa-ca.crt -subj /CN=RSA -days 30",
    );
    openssl(&conf, "req -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.csr -subj /CN=rsa.test");
    openssl(
        &conf,
        "x509 -req -in rsa.csr -CA rsa-ca.crt -CAkey rsa-ca.key -set_serial 0x77 -days 30 -out rsa.crt",
    );
    sign(&conf, "rsa", "rsa-ca", "rsa-ca", "-issuer rsa-ca.crt -cert rsa.crt");
    let read = |name| std::fs::read_to_string(conf.join(name)).expect("a certificate");
    std::fs::write(conf.join("rsa-chain.crt"), read("rsa.crt") + &read("rsa-ca.crt")).expect("a chain");
    dir
}

/// Lets OpenSSL answer a question.
fn sign(conf: &Path, answer: &str, ca: &str, signer: &str, question: &str) {
    let by = format!("-CA {ca}.crt -rsigner {signer}.crt -rkey {signer}.key -ndays 1 -noverify");
    openssl(conf, &format!("ocsp -index index {by} {question} -respout {answer}.der"));
}

/// A server in that folder, and its ports.
fn start() -> (Server, Ports) {
    let dir = answers();
    let ports = Ports::free();
    std::fs::write(dir.path().join("conf/nginx.conf"), ports.fill(CONF))
        .expect("the configuration is written");
    let server = Server::start_in(dir, "conf/nginx.conf", ports.0[0], "daemon off; master_process off;");
    (server, ports)
}

#[test]
fn answers_are_checked() {
    let (server, _) = start();
    for (answer, chain, want) in [
        ("good", "chain", "true 24"),
        ("delegated", "chain", "true 24"),
        ("rsa", "rsa-chain", "true 24"),
        ("revoked", "r-chain", "nil certificate status \"revoked\" in the OCSP response"),
        ("unknown", "u-chain", "nil certificate status \"unknown\" in the OCSP response"),
        ("good", "r-chain", "nil certificate status not found in the OCSP response"),
        ("forged", "chain", "nil OCSP_basic_verify() failed"),
        ("foreign", "chain", "nil OCSP_basic_verify() failed"),
        ("unfit", "chain", "nil OCSP_basic_verify() failed"),
        ("rsa", "chain", "nil OCSP_basic_verify() failed"),
        ("good", "mixed", "nil OCSP_basic_verify() failed"),
        ("good", "a", "nil no issuer certificate in chain"),
        ("try-later", "chain", "nil OCSP response not successful (3: trylater)"),
        ("garbage", "chain", "nil d2i_OCSP_RESPONSE() failed"),
        ("garbage", "chain&max=3", "nil d2i"),
    ] {
        let path = format!("/check?answer={answer}.der&chain={}", chain.replacen("chain&", "chain.crt&", 1));
        let path = if chain.contains('&') { path } else { format!("{path}.crt") };
        assert_eq!(server.get(&path).text(), want, "{answer} {chain}: {}", server.error_log());
    }
    let refused = server.get("/refused").text();
    let want = [
        "nild2i_X509_bio() failed",
        "nild2i_X509_bio() failed",
        "nild2i_X509_bio() failed",
        "nilbad request",
        "falsebad argument #1 to 'validate_ocsp_response' (string expected, got number)",
    ];
    assert_eq!(refused.lines().collect::<Vec<_>>(), want);
}

#[test]
fn authorities_understand_questions() {
    let (server, _) = start();
    let conf = server.file("conf");
    let told = server.get("/place?chain=chain.crt").text();
    let size = server.get("/question?chain=chain.crt").body.len();
    let too_small = format!("output buffer too small: {size} > 10");
    assert_eq!(told.lines().collect::<Vec<_>>(), ["http://ocsp.test/a", &too_small]);
    let told = server.get("/place?chain=chain.crt&max=4").text();
    assert_eq!(told.lines().next(), Some("httptruncated"));
    assert_eq!(server.get("/place?chain=r-chain.crt").text().lines().next(), Some("nil"));
    let told = server.get("/place?chain=mixed.crt").text();
    assert_eq!(told.lines().next(), Some("nilissuer certificate not next to leaf"));
    std::fs::write(conf.join("question.der"), server.get("/question?chain=chain.crt").body).expect("written");
    let shown = openssl(&conf, "ocsp -reqin question.der -req_text -noverify");
    assert!(shown.contains("Serial Number: 9001") && shown.contains("Hash Algorithm: sha1"), "{shown}");
    sign(&conf, "asked", "ca", "ca", "-reqin question.der");
    assert_eq!(server.get("/check?answer=asked.der&chain=chain.crt").text(), "true 24");
}

#[test]
fn clients_are_sent_proofs() {
    let (server, ports) = start();
    let conf = server.file("conf");
    for port in [ports.0[1], ports.0[2]] {
        for version in ["-tls1_2", "-tls1_3"] {
            let shown = s_client(&conf, port, &["-status", "-CAfile", "ca.crt", version]);
            assert!(shown.contains("OCSP Response Status: successful"), "{shown}");
            assert!(shown.contains("Cert Status: good"), "{shown}");
        }
        assert_eq!(server.get("/told").text(), "true nil");
        let checked = curl(&conf, "a.test", port, "/", &["--cacert", "ca.crt", "--cert-status"]);
        assert!(checked.contains("403 Forbidden"), "{checked}");
    }
    let plain = s_client(&conf, ports.0[1], &["-status", "-servername", "large.test"]);
    assert!(plain.contains("OCSP response: no response sent"), "{plain}");
    assert_eq!(server.get("/told").text(), "nil SSL_set_tlsext_status_ocsp_resp() failed");
    s_client(&conf, ports.0[1], &["-CAfile", "ca.crt"]);
    assert_eq!(server.get("/told").text(), "true no status req");
    let checked = curl(&conf, "a.test", ports.0[3], "/", &["--cacert", "ca.crt", "--cert-status"]);
    assert!(checked.contains("No OCSP response received"), "{checked}");
    let said = server.stderr();
    assert!(said.contains("\"ssl_stapling\" without \"ssl_stapling_file\" is ignored"), "{said}");
    assert!(said.contains("ssl_stapling_verify"), "{said}");
}

#[test]
fn wrong_stapling_files_are_told() {
    let ca = Authority::new("Test CA");
    let a = ca.issue("a.test");
    for (file, want) in [
        ("no.der", "no.der\": open() failed (2: No such file or directory)"),
        ("a.crt", "a.crt\": d2i_OCSP_RESPONSE_bio() failed"),
    ] {
        let conf = format!(
            "events {{}} http {{ server {{ listen 127.0.0.1:1 ssl; ssl_certificate a.crt; ssl_certificate_key a.key;
             ssl_stapling on; ssl_stapling_file {file}; }} }}"
        );
        let dir = folder(&conf, &[("conf/a.crt", &a.certificate), ("conf/a.key", &a.key)]);
        let (status, said) = run(dir.path(), &["-t"]);
        assert!(!status.success() && said.contains(want), "{said}");
    }
}
