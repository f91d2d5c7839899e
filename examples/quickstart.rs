//! An image assessment service in small, as people write it and as it should be.
//!
//! `cargo run --release --example quickstart -- [--report DIR] [FILE..]`
//!
//! For each picture a future reads the file, base64-encodes it, decodes it for
//! its size and the tokens it will cost, and awaits an assessor that takes a
//! second: a real HTTP server, in this program, on loopback. First all of that
//! happens in the future; then the blocking part moves to `spawn_blocking`.
//! Without files it makes three pictures of 12 megapixels. With `--report` both
//! reports are written, in all forms.

// It is a program for people to look at.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use image::{ImageFormat, ImageReader, RgbImage};
use stallscope::{Report, WatchExt, Watchdog};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

type Failure = Box<dyn Error + Send + Sync>;

const ASSESSOR_TAKES: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_millis(50);

/// What the assessor is asked about.
struct Question {
    width: u32,
    height: u32,
    tokens: u32,
    body: String,
}

/// Reads, decodes and encodes: everything here blocks.
fn prepare(path: &Path) -> Result<Question, Failure> {
    let bytes = std::fs::read(path)?;
    let picture = ImageReader::new(Cursor::new(&bytes))
        .with_guessed_format()?
        .decode()?;
    let (width, height) = (picture.width(), picture.height());
    let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
    Ok(Question {
        width,
        height,
        tokens: 85 + 170 * width.div_ceil(512) * height.div_ceil(512),
        body: format!(r#"{{"width":{width},"height":{height},"image":"{base64}"}}"#),
    })
}

/// Posts the picture and reads the answer.
async fn ask(assessor: u16, question: Question) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", assessor)).await?;
    let length = question.body.len();
    let head = format!(
        "POST /assess HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(question.body.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let verdict = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
    Ok(format!(
        "{}x{}, {} tokens: {verdict}",
        question.width, question.height, question.tokens
    ))
}

/// As people write it.
async fn assess_in_the_future(assessor: u16, path: PathBuf) -> Result<String, Failure> {
    let question = prepare(&path)?;
    ask(assessor, question).await
}

/// With what blocks on threads that are there for it.
async fn assess_off_the_worker(assessor: u16, path: PathBuf) -> Result<String, Failure> {
    let question = tokio::task::spawn_blocking(move || prepare(&path)).await??;
    ask(assessor, question).await
}

/// Answers each request after a second, on a runtime of its own.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Err(error) = answer(stream).await {
                eprintln!("assessor: {error}");
            }
        });
    }
}

async fn answer(stream: TcpStream) -> Result<(), Failure> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse()?,
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    tokio::time::sleep(ASSESSOR_TAKES).await;
    let verdict = "fine picture";
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{verdict}",
        verdict.len()
    );
    stream.write_all(head.as_bytes()).await?;
    Ok(())
}

/// A task that has nothing to do with pictures, and how late it comes at worst.
fn heartbeat(runtime: &Runtime) -> Arc<AtomicU64> {
    let worst_us = Arc::new(AtomicU64::new(0));
    let worst = Arc::clone(&worst_us);
    runtime.spawn(async move {
        let mut due = Instant::now() + HEARTBEAT;
        loop {
            tokio::time::sleep_until(due.into()).await;
            let late = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            worst.fetch_max(late, Ordering::Relaxed);
            due = Instant::now() + HEARTBEAT;
        }
    });
    worst_us
}

/// What one half has shown.
struct Half {
    wall: Duration,
    heartbeat: Duration,
    assessed: usize,
    report: Report,
}

fn run<F>(title: &str, files: &[PathBuf], assess: impl Fn(PathBuf) -> F) -> Result<Half, Failure>
where
    F: Future<Output = Result<String, Failure>> + Send + 'static,
{
    println!("\n== {title}");
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let watchdog = Watchdog::builder()
        .on_stall(|event| eprintln!("  {event}"))
        .start_on(runtime.handle())?;
    let heartbeat = heartbeat(&runtime);
    let start = Instant::now();
    let tasks: Vec<_> = files
        .iter()
        .map(|file| runtime.spawn(assess(file.clone()).watched("assess")))
        .collect();
    let answers = runtime.block_on(async {
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap_or_else(|error| Err(error.into())));
        }
        answers
    });
    let wall = start.elapsed();
    // One more heartbeat, which a stall may have kept waiting.
    std::thread::sleep(2 * HEARTBEAT);
    let heartbeat = Duration::from_micros(heartbeat.load(Ordering::Relaxed));
    let report = watchdog.report();
    // Lets the last lines come before the next ones.
    drop(watchdog);
    let mut assessed = 0;
    for (file, answer) in files.iter().zip(answers) {
        match answer {
            Ok(verdict) => {
                assessed += 1;
                println!("  {}: {verdict}", file.display());
            }
            Err(error) => println!("  {}: not assessed: {error}", file.display()),
        }
    }
    println!("\n{}", report.terminal());
    Ok(Half {
        wall,
        heartbeat,
        assessed,
        report,
    })
}

/// Three pictures with enough detail that decoding them is work.
fn make_pictures(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    std::fs::create_dir_all(folder)?;
    let mut seed = 1_u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 28) as u8
    };
    let picture = RgbImage::from_fn(4_000, 3_000, |x, y| {
        let grain = noise();
        image::Rgb([
            (x / 16) as u8 ^ grain,
            (y / 12) as u8 ^ grain,
            ((x + y) / 28) as u8,
        ])
    });
    let pictures = [
        ("harbour.jpg", ImageFormat::Jpeg),
        ("market.jpg", ImageFormat::Jpeg),
        ("mountain.png", ImageFormat::Png),
    ];
    pictures
        .into_iter()
        .map(|(name, format)| {
            let path = folder.join(name);
            picture.save_with_format(&path, format)?;
            Ok(path)
        })
        .collect()
}

fn compare(before: &Half, after: &Half) -> String {
    let mut table = String::new();
    let ms = |duration: Duration| format!("{:.0} ms", duration.as_secs_f64() * 1e3);
    let longest = |half: &Half| {
        ms(half
            .report
            .hotspots()
            .first()
            .map_or(Duration::ZERO, |h| h.max()))
    };
    let rows = [
        ("wall time", ms(before.wall), ms(after.wall)),
        (
            "assessed",
            before.assessed.to_string(),
            after.assessed.to_string(),
        ),
        (
            "stalls",
            before.report.counts().total().to_string(),
            after.report.counts().total().to_string(),
        ),
        ("longest stall", longest(before), longest(after)),
        (
            "heartbeat late by",
            ms(before.heartbeat),
            ms(after.heartbeat),
        ),
    ];
    let _ = writeln!(
        table,
        "  {:<20} {:>14} {:>16}",
        "", "in the future", "spawn_blocking"
    );
    for (what, before, after) in rows {
        let _ = writeln!(table, "  {what:<20} {before:>14} {after:>16}");
    }
    table
}

fn quickstart() -> Result<usize, Failure> {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let mut reports = None;
    if let Some(at) = files.iter().position(|word| word == Path::new("--report")) {
        files.remove(at);
        if at == files.len() {
            return Err("--report needs a folder".into());
        }
        reports = Some(files.remove(at));
    }
    let folder = std::env::temp_dir().join(format!("stallscope-quickstart-{}", std::process::id()));
    let made = files.is_empty();
    if made {
        println!("making three pictures of 12 megapixels");
        files = make_pictures(&folder)?;
    }

    let assessor = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let listener = assessor.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let port = listener.local_addr()?.port();
    assessor.spawn(serve(listener));

    let before = run("everything in the future", &files, |file| {
        assess_in_the_future(port, file)
    })?;
    let after = run("blocking work in spawn_blocking", &files, |file| {
        assess_off_the_worker(port, file)
    })?;
    println!("\n== side by side\n{}", compare(&before, &after));
    if let Some(reports) = reports {
        before.report.write_all(&reports, "before")?;
        after.report.write_all(&reports, "after")?;
        println!("reports are in {}", reports.display());
    }
    if made {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(after.assessed)
}

fn main() -> std::process::ExitCode {
    match quickstart() {
        Ok(0) => std::process::ExitCode::FAILURE,
        Ok(_) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
