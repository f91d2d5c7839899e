#[stallscope::test]
fn is_not_async() {}

#[stallscope::test]
async unsafe fn is_unsafe() {}

#[stallscope::test]
async extern "C" fn is_called_by_c() {}

#[stallscope::test]
async fn is_generic<T: Default>() {
    T::default();
}

#[stallscope::test]
async fn has_a_lifetime<'a>() {}

#[stallscope::test]
async fn has_bounds()
where
    String: Clone,
{
}

#[stallscope::test]
async fn has_parameters(_number: u32) {}

#[stallscope::test]
async fn returns_something() -> impl std::process::Termination {}

#[stallscope::test]
async fn returns_never() -> ! {
    std::process::exit(1)
}

#[stallscope::test]
struct IsNoFunction;

fn main() {}
