"""What all tests share: no deadline for hypothesis, no run that passes without a test."""

import pytest
from hypothesis import settings

settings.register_profile("infra-core", settings(), deadline=None)  # machines may be busy
settings.load_profile("infra-core")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a run fail in which every test was skipped: it has proved nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    ran = any(reporter.stats.get(kind) for kind in ("passed", "failed", "error", "xfailed"))
    if exitstatus == pytest.ExitCode.OK and not ran and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
