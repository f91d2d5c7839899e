//! What is clean passes, and what is not does not.

#![cfg(target_os = "linux")]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use stallscope::{Audit, Detection, Report, assert_no_blocking, assert_no_stalls, audit};
use stallscope_async_crates::router;
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceBuilder, ServiceExt};

fn clean(report: &Report) {
    report.check_no_blocking().unwrap();
    report.check_no_stalls().unwrap();
}

async fn get(path: &str) -> (StatusCode, Bytes) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router().oneshot(request).await.unwrap();
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn a_handler_of_axum() {
    let (status, body) = assert_no_blocking!(get("/hello/world"));
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, r#"{"hello":"world"}"#);
    assert_no_stalls!(get("/hello/again"));
}

#[tokio::test]
async fn a_handler_of_axum_that_blocks() {
    let report = audit(get("/blocks")).await.report;
    // Syncing a file that has not been written to need not sleep.
    if report.detection() == Some(Detection::Calls) {
        let failure = report.check_no_blocking().unwrap_err().to_string();
        assert!(
            failure.contains("blocks src/lib.rs") || failure.contains("async_crates/src/lib.rs"),
            "{failure}"
        );
        assert!(failure.contains("tokio::fs"), "{failure}");
    }
}

/// Serves a router on loopback, in the runtime of the test.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router()).await });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_server_and_its_client() {
    let whole = Audit::new().whole_runtime().run(async {
        let address = serve().await;
        let client = reqwest::Client::new();
        for name in ["a", "b"] {
            let url = format!("http://{address}/hello/{name}");
            let body = client.get(url).send().await.unwrap().text().await.unwrap();
            assert!(body.contains(name), "{body}");
        }
        let sum: u64 = client
            .post(format!("http://{address}/sum"))
            .json(&[1, 2, 3])
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(sum, 6);
    });
    clean(&whole.await.report);
}

#[tokio::test]
async fn a_client_like_reqwest() {
    let address = serve().await;
    let client = reqwest::Client::new();
    let audited = audit(async {
        let response = client.get(format!("http://{address}/hello/x"));
        response
            .timeout(Duration::from_secs(10))
            .send()
            .await
            .unwrap()
            .status()
    });
    let audited = audited.await;
    assert_eq!(audited.output, StatusCode::OK);
    clean(&audited.report);
}

async fn echo(request: Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(hyper::Response::new(Full::new(body)))
}

#[tokio::test]
async fn both_ends_of_hyper() {
    let audited = audit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        stallscope::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(echo))
                .await
                .unwrap();
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        stallscope::spawn(connection);
        let request = Request::builder()
            .uri("/")
            .body(Empty::<Bytes>::new())
            .unwrap();
        sender.send_request(request).await.unwrap().status()
    });
    let audited = audited.await;
    assert_eq!(audited.output, StatusCode::OK);
    clean(&audited.report);
}

#[tokio::test]
async fn a_stack_of_tower() {
    let audited = audit(async {
        let mut service = ServiceBuilder::new()
            .buffer(4)
            .concurrency_limit(2)
            .timeout(Duration::from_secs(5))
            .service(tower::service_fn(|n: u64| async move {
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(n + 1)
            }));
        let mut sum = 0;
        for n in 0..10 {
            sum += service.ready().await.unwrap().call(n).await.unwrap();
        }
        sum
    });
    let audited = audited.await;
    assert_eq!(audited.output, 55);
    clean(&audited.report);
}
