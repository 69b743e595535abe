from lerf_ros.evaluation.pacing import drive


def test_every_frame_is_handed_over_once_in_order_with_work_in_between():
    frames, events = list(range(7)), []
    drive(frames, 0.2, lambda frame: events.append(frame), lambda: events.append("work"))
    assert [event for event in events if event != "work"] == frames
    assert events[0] == 0 and events[1] == "work" and events[-1] == "work"
