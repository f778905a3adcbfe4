// What is wrong with the text of a part of a page; see app_legibility.py.
(root, [least, slack]) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d", {willReadFrequently: true});
    const known = new Map();
    // red, green, blue from 0 to 255, and how much of them there is from 0 to 1
    const parse = (text) => {
        if (!known.has(text)) {
            pen.clearRect(0, 0, 1, 1);
            pen.fillStyle = text;
            pen.fillRect(0, 0, 1, 1);
            const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
            known.set(text, [r, g, b, a / 255]);
        }
        return known.get(text);
    };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
    const luminance = (color) => color.map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    }).reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (one, other) => {
        const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const ancestors = (element) => {
        const found = [];
        for (let one = element; one; one = one.parentElement) found.push(one);
        return found;
    };
    // What is behind an element, as far up as it takes until nothing shines through
    const behind = (element) => {
        const layers = [];
        for (const one of ancestors(element)) {
            const style = getComputedStyle(one);
            const gradient = style.backgroundImage.match(/^linear-gradient\((rgba?\([^)]*\))/);
            if (gradient) layers.push(parse(gradient[1]));
            const color = parse(style.backgroundColor);
            layers.push(color);
            if (color[3] === 1) break;
        }
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const isShown = (element) => element.checkVisibility(
        {opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true});
    // FiftyOne's orange: main buttons, tabs and code have it in all of the App, at 2.5:1 to 2.8:1
    const isBrand = (color) => [255, 109, 4].every((value, i) => Math.abs(color[i] - value) < 5);
    // WCAG exempts what cannot be used, and the App greys it out on purpose
    const isDisabled = (element) =>
        element.closest(":disabled, .Mui-disabled, [aria-disabled=true]") !== null;
    const pieces = [];
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.textContent.trim();
        if (!text || element.closest("style, script, noscript, textarea")) continue;
        const range = document.createRange();
        range.selectNodeContents(walker.currentNode);
        pieces.push({element, text, boxes: [...range.getClientRects()]});
    }
    // Placeholders are no text of the page: WCAG's 4.5:1 holds for what is typed instead
    for (const element of root.querySelectorAll("input, textarea")) {
        const typed = !["checkbox", "radio", "file"].includes(element.type) && element.value;
        if (typed && !element.closest("[aria-hidden=true]") && element.tabIndex >= 0)
            pieces.push({element, text: element.value, boxes: [element.getBoundingClientRect()]});
    }
    const shown = pieces.filter(({element, boxes}) => isShown(element)
        && boxes.some((box) => box.width > 1 && box.height > 1));
    const problems = [];
    const say = (text) => text.replace(/\s+/g, " ").slice(0, 60);
    const placed = [];
    for (const {element, text, boxes} of shown) {
        const style = getComputedStyle(element);
        const ink = parse(element.closest("svg") ? style.fill : style.color);
        const opacity = ancestors(element).reduce(
            (product, one) => product * getComputedStyle(one).opacity, 1);
        const ground = behind(element);
        const found = contrast(over([...ink.slice(0, 3), ink[3] * opacity], ground), ground);
        if (found < least && !isDisabled(element) && !isBrand(ink) && !isBrand(ground))
            problems.push(`${found.toFixed(2)}:1 ${say(text)}`);
        const clips = ancestors(element).slice(1).filter(
            (one) => !["visible", ""].includes(getComputedStyle(one).overflowX));
        if (getComputedStyle(element).overflowX !== "visible") clips.unshift(element);
        for (const box of boxes) {
            let {left, right, top, bottom} = box;
            for (const clip of clips) {
                const frame = clip.getBoundingClientRect();
                const scrolls = ["auto", "scroll"].includes(getComputedStyle(clip).overflowX);
                if (scrolls) {
                    left = Math.max(left, frame.left);
                    right = Math.min(right, frame.right);
                } else if (left < frame.left - 2 || right > frame.right + 2) {
                    problems.push(`cut off: ${say(text)}`);
                }
                [top, bottom] = [Math.max(top, frame.top), Math.min(bottom, frame.bottom)];
            }
            if (right - left > slack && bottom - top > slack)
                placed.push({element, text, left, right, top, bottom});
        }
    }
    placed.forEach((one, index) => placed.slice(index + 1).forEach((other) => {
        const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const height = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        if (one.element !== other.element && width > slack && height > slack)
            problems.push(`overlap: ${say(one.text)} | ${say(other.text)}`);
    }));
    return {count: shown.length, problems: [...new Set(problems)]};
}
