from node_harness import image, stamp_of, wait_for

def test_first(lab):
    lab.start_active()
    poses = lab.listen("/bmp/poses")
    camera = lab.camera()
    camera.wait_for_subscriber()
    stamp = camera.send()
    wait_for(lambda: poses, "people")
    assert stamp_of(poses[0]) == stamp
    assert len(poses[0].people) == 2
