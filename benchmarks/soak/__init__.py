"""Five real nodes under load, restarts and a flaky link, for as long as one likes."""
