"""What SciPy's own tests expect of their conftest: its markers."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register them: the tests are marked for array libraries other than NumPy."""
    for name in ("skip_xp_backends", "xfail_xp_backends"):
        config.addinivalue_line("markers", f"{name}(*backends): SciPy's own")
